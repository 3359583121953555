"""Training data: published sets and one's own as examples, mixtures and batches of them, and the
corpus of text that any machine with Python carries."""
