"""MetaEmbed: multimodal retrieval whose cost you choose at query time."""

__version__ = "0.1.0"
