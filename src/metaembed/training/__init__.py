"""Training MetaEmbed models from recipes."""
