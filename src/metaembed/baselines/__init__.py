"""Retrieval without meta tokens, for comparison."""
