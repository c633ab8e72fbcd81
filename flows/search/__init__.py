"""Several candidates trained beside each other, and the best of them by rows that none of them is judged by."""
