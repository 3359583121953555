"""Text that any machine with Python carries, as pairs for training and testing retrieval."""
