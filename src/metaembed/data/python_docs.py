"""Every documented object of the standard library and of the installed packages.

Sources are parsed, never imported; only modules that are compiled into Python itself, and so
have no source to parse, are looked at alive.
"""

import importlib
import inspect
import itertools
import logging
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePath
from typing import Any, TypeVar

from metaembed.data.manuals import sections
from metaembed.data.source import Entry, Kind, read_source, source_entries, split_signature
from metaembed.data.split import stable_hash, unit

MAX_ENTRIES = 20_000
"""Most entries of one package; beyond it a fixed choice by hash of the name."""

LANGUAGE = "python"
"""The package name of the language reference."""

_SKIPPED_PARTS = frozenset(
    "test tests testing _test _tests testdata idlelib lib2to3 turtledemo ensurepip "  # noqa: SIM905
    "pydoc_data site-packages __pycache__ _vendor _vendored vendor vendored third_party "
    "_third_party extern externals _internal benchmarks bench examples locale typeshed "
    "node_modules __phello__ antigravity this distutils".split()
)
_SKIPPED_PACKAGES = frozenset({"metaembed", "dev"})
_SKIPPED_NAMES = re.compile(r"(test_.*|.*_tests?|conftest|.*_pb2|__main__|setup)\.py")
_NOT_MANUALS = re.compile(r"(?i)licen[cs]e|copying|notice|authors|changelog|changes|template|sbom")
_COMPILED_MODULES = (  # noqa: SIM905
    "_bisect _bz2 _collections _contextvars _csv _datetime _decimal _elementtree "
    "_functools "
    "_hashlib _heapq _io _json _lzma _operator _pickle _queue _random _socket _sqlite3 _ssl "
    "_struct _thread _weakref _zoneinfo array atexit binascii builtins cmath errno fcntl gc grp "
    "itertools marshal math mmap posix pwd pyexpat resource select sys syslog termios time "
    "unicodedata zlib"
).split()

T = TypeVar("T")
Keep = Callable[[str], bool]

logger = logging.getLogger(__name__)


def standard_library_entries(
    *, keep: Keep | None = None, with_private: bool = False
) -> Iterator[Entry]:
    """Yield what the running Python documents about itself, package by package.

    `keep` decides by package name before anything of that package is read. Names that begin with
    an underscore need `with_private`.
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules = _by_package(_library_files(root))
    compiled = _grouped(_COMPILED_MODULES, unit)
    for package in sorted({*modules, *compiled, LANGUAGE}):
        if keep is None or keep(package):
            files = modules.get(package, [])
            alive = map(_compiled_entries, compiled.get(package, []))
            topics = _language_reference() if package == LANGUAGE else ()
            parsed = _file_entries(files, root=root, with_private=with_private)
            yield from _limited(itertools.chain(parsed, topics, *alive))


def installed_package_entries(
    *, keep: Keep | None = None, with_private: bool = False
) -> Iterator[Entry]:
    """Yield what the installed distributions document: docstrings, READMEs, packaged manuals.

    `keep` and `with_private` are those of `standard_library_entries`. This package is left out.
    """
    found: dict[str, Distribution] = {}
    for item in distributions():  # in the order of the path: the first of a name is imported
        found.setdefault(_distribution_name(item), item)
    for name in sorted(found):
        root = Path(str(found[name].locate_file("")))
        packages = _installed_files(found[name])
        for number, package in enumerate(packages):
            if keep is None or keep(package):
                files = packages[package]
                parsed = _file_entries(files, root=root, with_private=with_private)
                readme = _readme(found[name], package=package) if number == 0 else ()
                yield from _limited(itertools.chain(parsed, readme))


def _library_files(root: Path) -> Iterator[PurePath]:
    """Yield the sources of the standard library relative to `root`, with no look elsewhere."""
    for top in root.iterdir():
        if top.name not in _SKIPPED_PARTS:
            for path in [top] if top.is_file() else top.rglob("*.py"):
                if path.suffix == ".py" and _is_documented(path.relative_to(root)):
                    yield path.relative_to(root)


def _distribution_name(distribution: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()


def _installed_files(distribution: Distribution) -> dict[str, list[PurePath]]:
    grouped = _by_package(path for path in distribution.files or () if _is_documented(path))
    return {name: grouped[name] for name in sorted(grouped) if name not in _SKIPPED_PACKAGES}


def _by_package(paths: Iterable[PurePath]) -> dict[str, list[PurePath]]:
    return _grouped(sorted(paths), lambda path: unit(path.parts[0].removesuffix(".py")))


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _is_documented(path: PurePath) -> bool:
    *folders, file = path.parts
    if not file.endswith((".py", ".rst", ".md")) or not _SKIPPED_PARTS.isdisjoint(folders):
        return False
    if ".." in folders or any(part.endswith((".dist-info", ".data")) for part in folders):
        return False
    if file.endswith(".py"):
        return path.stem not in _SKIPPED_PARTS and not _SKIPPED_NAMES.fullmatch(file)
    return bool(folders) and not _NOT_MANUALS.search(file)


def _limited(entries: Iterable[Entry]) -> list[Entry]:
    """Return at most `MAX_ENTRIES`, always the same ones, in order."""
    ordered = sorted(set(entries), key=lambda entry: (stable_hash(entry.name), entry))
    return sorted(ordered[:MAX_ENTRIES])


def _file_entries(paths: Sequence[PurePath], *, root: Path, with_private: bool) -> Iterator[Entry]:
    for path in paths:
        source = read_source(root / path)
        if source is None:
            logger.debug("Skipped %s: unreadable or too large.", path)
            continue
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        package = unit(path.parts[0].removesuffix(".py"))
        if path.suffix == ".py":
            yield from source_entries(
                source, package=package, module=module, with_private=with_private
            )
        else:
            yield from _manual_entries(source, package=package, title=module)


def _manual_entries(text: str, *, package: str, title: str) -> Iterator[Entry]:
    for section in sections(text):
        name = f"{title}: {section.heading}" if section.heading else title
        yield Entry(package, name, "text", section.body, "")


def _readme(distribution: Distribution, *, package: str) -> Iterator[Entry]:
    # A Message at run time, whatever narrower type importlib.metadata promises.
    metadata: Any = distribution.metadata
    text = metadata.get_payload() or metadata.get("Description", "")
    yield from _manual_entries(str(text), package=package, title=f"{package} readme")


def _compiled_entries(name: str) -> Iterator[Entry]:
    """Look at a module that is compiled into Python and therefore has no source."""
    try:
        module = importlib.import_module(name)
    except ImportError:  # not part of this platform's Python
        return
    package = unit(name)
    if doc := inspect.getdoc(module):
        yield Entry(package, package, "module", doc, "")
    for key, value in _public_callables(module):
        is_class = inspect.isclass(value)
        yield from _living(value, name=f"{package}.{key}", kind="class" if is_class else "function")
        for attribute, method in _public_callables(value) if is_class else ():
            yield from _living(method, name=f"{package}.{key}.{attribute}", kind="method")


def _public_callables(owner: object) -> list[tuple[str, object]]:
    members = sorted(vars(owner).items())
    return [(name, value) for name, value in members if name[0] != "_" and callable(value)]


def _living(value: object, *, name: str, kind: Kind) -> Iterator[Entry]:
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str) or not doc.strip():
        return
    signature, doc = split_signature(inspect.cleandoc(doc))
    parameters = getattr(value, "__text_signature__", None)
    if isinstance(parameters, str):
        parameters = re.sub(r"\$\w+(, /)?(, )?", "", parameters)
        signature = f"{name.rpartition('.')[2]}{parameters}"
    yield Entry(name.partition(".")[0], name, kind, doc, signature)


def _language_reference() -> Iterator[Entry]:
    """Yield the chapters of the language reference that `help()` shows."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    for topic, text in sorted(topics.items()):
        yield from _manual_entries(text, package=LANGUAGE, title=f"{LANGUAGE}.{topic}")
