"""Docstrings, names and signatures out of source text."""

import ast
import textwrap

from hypothesis import given
from hypothesis import strategies as st

from metaembed.data.source import (
    MAX_FILE_BYTES,
    Entry,
    read_source,
    source_entries,
    split_signature,
)

SOURCE = textwrap.dedent(
    '''
    """Shapes."""
    raise RuntimeError("imported, not parsed")

    class Square(Shape):
        """A square."""

        def __init__(self, side: float, *, unit: str = "m") -> None:
            """Hidden."""

        async def area(self, /, digits: int = 2) -> float:
            """Compute the area.

                Indented.
            Not indented.
            """

        @classmethod
        def _parse(cls, text): "Read a square."

    def undocumented(): pass
    '''
)


def entries(source, **options):
    return list(source_entries(source, package="shapes", module="shapes.flat", **options))


def test_worked_by_hand():
    assert entries(SOURCE) == [
        Entry("shapes", "shapes.flat", "module", "Shapes.", ""),
        Entry("shapes", "shapes.flat.Square", "class", "A square.", "Square(side, *, unit='m')"),
        Entry(
            "shapes",
            "shapes.flat.Square.area",
            "method",
            "Compute the area.\n\n    Indented.\nNot indented.",
            "area(self, /, digits=2)",
        ),
    ]


def test_private_names_are_kept_on_request_and_dunders_never():
    names = [entry.name.rpartition(".")[2] for entry in entries(SOURCE, with_private=True)]
    assert names == ["flat", "Square", "area", "_parse"]


def test_documentation_added_to_compiled_objects_is_read():
    numpy = '''
add_newdoc("numpy._core.multiarray", "ndarray", ("all", """all(axis=None)

Return True if all elements are true."""))
add_newdoc("numpy", "exp", """Compute the exponential of the input.""")
'''
    torch = '''
add_docstr(torch.abs, r"""abs(input, *, out=None) -> Tensor

Compute the absolute value of {input}.""".format(**common))
'''
    found = [
        *source_entries(numpy, package="numpy", module="numpy._docs"),
        *source_entries(torch, package="torch", module="torch._docs"),
    ]
    assert [(entry.name, entry.signature, entry.doc) for entry in found] == [
        (
            "numpy._core.multiarray.ndarray.all",
            "all(axis=None)",
            "Return True if all elements are true.",
        ),
        ("numpy.exp", "", "Compute the exponential of the input."),
        (
            "torch.abs",
            "abs(input, *, out=None) -> Tensor",
            "Compute the absolute value of {input}.",
        ),
    ]


def test_the_signature_on_the_first_line_is_separated():
    assert split_signature("f(x, y=(1, 2)) -> int\n\nAdd.") == ("f(x, y=(1, 2)) -> int", "Add.")
    assert split_signature("Add f(x).\n\nMore.") == ("", "Add f(x).\n\nMore.")


def test_source_that_does_not_parse_documents_nothing():
    assert entries('"""Doc."""\ndef broken(:') == []
    assert entries('"""Doc."""\0') == []


@given(st.text(max_size=60))
def test_any_text_is_survived(text):
    for entry in entries(f'"""Doc."""\n{text}'):
        assert entry.package == "shapes"
        assert ast.parse(f"def {entry.signature or 'f()'}: pass")


def test_files_that_cannot_be_read_are_none(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"'''caf\xe9'''")
    (tmp_path / "large.py").write_bytes(b" " * (MAX_FILE_BYTES + 1))
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbf'''Doc.'''")
    assert read_source(tmp_path / "latin.py") is None
    assert read_source(tmp_path / "large.py") is None
    assert read_source(tmp_path / "absent.py") is None
    assert read_source(tmp_path / "marked.py") == "'''Doc.'''"
