"""Which packages are kept out of training.

A package is on one side with everything it documents, so that a model is tested on text whose
subject, authors and habits of wording it has not seen.
"""

import hashlib
import re

HELD_OUT = frozenset(
    "argparse asyncio collections csv datetime email functools hashlib heapq http itertools "  # noqa: SIM905
    "json "
    "logging pathlib pickle random re shutil sqlite3 statistics subprocess tempfile textwrap "
    "threading unittest urllib zipfile sklearn networkx rich pydantic".split()
)
"""Held out whatever their hash says, so that the held-out side is diverse on every machine."""

IN_TRAINING = frozenset({"transformers"})
"""In training whatever their hash says: the package with the most text where it is installed."""

_SAME_PACKAGE = {
    "blake2": "hashlib",
    "collections_abc": "collections",
    "compat_pickle": "pickle",
    "elementtree": "xml",
    "md5": "hashlib",
    "nturl2path": "urllib",
    "ntpath": "os",
    "pickletools": "pickle",
    "posix": "os",
    "posixpath": "os",
    "pydantic_core": "pydantic",
    "pyexpat": "xml",
    "sha1": "hashlib",
    "sha256": "hashlib",
    "sha3": "hashlib",
    "sha512": "hashlib",
    "sre_compile": "re",
    "sre_constants": "re",
    "sre_parse": "re",
    "strptime": "time",
    "threading_local": "threading",
    "weakrefset": "weakref",
}


def stable_hash(text: str) -> bytes:
    """Return the same bytes for the same text in every process, unlike `hash`."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def unit(package: str) -> str:
    """Return the name under which a package is split: `_pydecimal` goes where `decimal` goes.

    >>> unit("_pydecimal"), unit("_csv"), unit("sre_parse"), unit("json.decoder")
    ('decimal', 'csv', 're', 'json')
    """
    top = package.partition(".")[0]
    name = re.sub(r"^_+(py(?!test$))?", "", top)
    return _SAME_PACKAGE.get(name, name)


def is_held_out(package: str) -> bool:
    """Say whether a package may only be tested on. About one package in eight is, by hash."""
    name = unit(package).lower()
    if name in IN_TRAINING:
        return False
    return name in HELD_OUT or int.from_bytes(stable_hash(name)) % 8 == 0
