"""From a table to a recipe: reads it, finds out what its columns are, and makes a network that takes them raw."""
