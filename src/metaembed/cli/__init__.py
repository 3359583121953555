"""The `metaembed` command. Parses, calls one library function, prints."""

from metaembed.cli.app import main

__all__ = ["main"]
