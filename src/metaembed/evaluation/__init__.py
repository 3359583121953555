"""How well queries find what they look for."""
