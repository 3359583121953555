"""MetaEmbed: multimodal retrieval whose cost you choose at query time."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaembed.budget import Budget
    from metaembed.index import Hit, Index
    from metaembed.items import Item
    from metaembed.library import Library
    from metaembed.loss import MMRLoss
    from metaembed.model import MetaEmbed
    from metaembed.models import load_model
    from metaembed.scoring import maxsim

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Hit",
    "Index",
    "Item",
    "Library",
    "MMRLoss",
    "MetaEmbed",
    "load_model",
    "maxsim",
]

_HOMES = {
    "Budget": "budget",
    "Hit": "index",
    "Index": "index",
    "Item": "items",
    "Library": "library",
    "MMRLoss": "loss",
    "MetaEmbed": "model",
    "load_model": "models",
    "maxsim": "scoring",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metaembed' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"metaembed.{_HOMES[name]}"), name)
