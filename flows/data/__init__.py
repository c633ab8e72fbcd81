"""Rows of training data, what identifies them, and how they are split."""
