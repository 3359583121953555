"""What one Python source file documents, read by parsing and never by importing."""

import ast
import gc
import inspect
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

MAX_FILE_BYTES = 1_000_000
"""Larger sources are generated tables: slow to parse and without prose."""

Kind = Literal["module", "class", "function", "method", "text"]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef

_DOC_SETTERS = re.compile(r"add_(newdoc|docstr)")
_FIRST_LINE_SIGNATURE = re.compile(r"[\w.]+\((?:[^()]|\([^()]*\))*\)(?:\s*->.*)?")


class Entry(NamedTuple):
    """One documented object.

    `package` is the top-level name, the unit of the training/held-out split. `doc` is a cleaned
    docstring or, for the kind `text`, a section of a README or manual below its heading.
    `signature` is `dumps(obj, *, indent=None)`, and empty for modules and text.
    """

    package: str
    name: str
    kind: Kind
    doc: str
    signature: str


def read_source(path: Path) -> str | None:
    """Return the text of a file, or None when it is unreadable, too large or not UTF-8."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError):
        return None


def source_entries(
    source: str, *, package: str, module: str, with_private: bool = False
) -> Iterator[Entry]:
    """Yield the module, its classes, functions and methods that have docstrings.

    Names that begin with an underscore need `with_private`. Objects in a private module count as
    public: that is where many packages keep what they re-export. Source that does not parse
    yields nothing.
    """
    tree = _parse(source)
    if tree is None:
        return
    if doc := ast.get_docstring(tree):
        yield Entry(package, module, "module", doc, "")
    hidden = "__" if with_private else "_"
    yield from _body_entries(tree.body, package=package, scope=module, hidden=hidden)


def _parse(source: str) -> ast.Module | None:
    if '"""' not in source and "'''" not in source:
        return None
    was_enabled = gc.isenabled()
    gc.disable()  # collecting while a tree grows doubles the time to parse
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's source
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    finally:
        if was_enabled:
            gc.enable()


def _body_entries(
    body: list[ast.stmt], *, package: str, scope: str, hidden: str, in_class: bool = False
) -> Iterator[Entry]:
    """Yield what a body defines, less names that start with `hidden`."""
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added_doc(node.value, package=package, scope=scope)
        if not isinstance(node, Definition) or node.name.startswith(hidden):
            continue
        name = f"{scope}.{node.name}"
        if doc := ast.get_docstring(node):
            yield Entry(
                package,
                name,
                _kind(node, in_class=in_class),
                doc,
                _signature(node, in_class=in_class),
            )
        if isinstance(node, ast.ClassDef):
            yield from _body_entries(
                node.body, package=package, scope=name, hidden=hidden, in_class=True
            )


def _kind(node: Definition, *, in_class: bool) -> Kind:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if in_class else "function"


def _added_doc(call: ast.Call, *, package: str, scope: str) -> Iterator[Entry]:
    """Read `add_newdoc("numpy", "ndarray", ("all", "..."))` and `add_docstr(torch.abs, "...")`.

    Compiled functions of numerical packages are documented this way.
    """
    if not _DOC_SETTERS.search(ast.unparse(call.func)):
        return
    owner, name, doc = scope.rpartition(".")[0], "", ""
    for argument in itertools.chain.from_iterable(map(_members, call.args)):
        text = _literal_text(argument)
        if text is None:
            name = name or ast.unparse(argument)
        elif len(text.split()) > 3:
            doc = text
        elif "." in text:
            owner = text
        else:
            name = f"{name}.{text}" if name else text
    if doc and len(name) < 80 and not name.startswith("_"):
        name = name if name.startswith(f"{package}.") else f"{owner or package}.{name}"
        signature, doc = split_signature(inspect.cleandoc(doc))
        yield Entry(package, name, "function", doc, signature)


def _members(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _literal_text(node: ast.expr) -> str | None:
    """Return a string constant, also from `r"...".format(...)` and `"..." + "..."`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _literal_text(node.func.value)
    if isinstance(node, ast.BinOp):
        sides = (_literal_text(node.left), _literal_text(node.right))
        return "\n".join(side for side in sides if side) or None
    return None


def split_signature(doc: str) -> tuple[str, str]:
    """Separate the signature that compiled functions put on the first line of a docstring."""
    first, _, rest = doc.partition("\n")
    match = _FIRST_LINE_SIGNATURE.fullmatch(first.strip())
    return (first.strip(), rest.strip()) if match else ("", doc)


def _signature(node: Definition, *, in_class: bool) -> str:
    """Write a definition's parameters without annotations, `self` and `cls`."""
    function = _constructor(node) if isinstance(node, ast.ClassDef) else node
    if function is None:
        return f"{node.name}()"
    arguments = ast.unparse(_without_annotations(function.args))
    if in_class or function is not node:
        arguments = re.sub(r"^(self|cls)(, (?!/)|$)", "", arguments)
    return f"{node.name}({arguments})"


def _constructor(node: ast.ClassDef) -> Function | None:
    for child in node.body:
        if isinstance(child, Function) and child.name == "__init__":
            return child
    return None


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stars = [star for star in (arguments.vararg, arguments.kwarg) if star is not None]
    for argument in named + stars:
        argument.annotation = None
    return arguments
