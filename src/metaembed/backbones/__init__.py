"""What differs between families of backbones: one module a family, found by its name.

The module `metaembed.backbones.families.<config.model_type>` holds a `Family` named `FAMILY`; a
type without such a module is read as `default` says. Nothing else knows a family's name.
"""

import pkgutil
from importlib import import_module

from metaembed.backbones import families as _entries
from metaembed.backbones.family import Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.minilm import MINILM, resolve_backbone
from metaembed.backbones.pictures import Pictures

DEFAULT = "default"

__all__ = [
    "MINILM",
    "Family",
    "Layout",
    "Pictures",
    "family_names",
    "family_of",
    "resolve_backbone",
]


def family_names() -> list[str]:
    """Return the types that have an entry of their own."""
    return [
        found.name for found in pkgutil.iter_modules(_entries.__path__) if found.name != DEFAULT
    ]


def family_of(model_type: str) -> Family:
    """Return what is special about backbones of a `config.model_type`."""
    name = model_type.replace("-", "_")
    # A checkpoint says what its type is: names are looked up first, not imported as they come.
    module = name if name in family_names() else DEFAULT
    family: Family = import_module(f"{_entries.__name__}.{module}").FAMILY
    return family
