"""What the running Python and a package made for the test document."""

import pytest

from metaembed.data import python_docs
from metaembed.data.python_docs import installed_package_entries, standard_library_entries

FILES = {
    "shapes/__init__.py": '"""Draw shapes."""\nraise RuntimeError("imported, not parsed")\n',
    "shapes/flat.py": 'def square(side):\n    """Draw a square."""\n',
    "shapes/_core.py": 'def _grid(side):\n    """Draw a grid."""\n',
    "shapes/broken.py": '"""Broken."""\ndef broken(:\n',
    "shapes/latin.py": b'"""Caf\xe9."""\n',
    "shapes/guide.md": "# Colours\nShapes have colours.\n",
    "shapes/LICENSE.md": "# Terms\nAs is.\n",
    "shapes/tests/test_flat.py": '"""Test squares."""\n',
    "shapes/_vendor/other.py": '"""Somebody else\'s."""\n',
    "shapes_made-1.0.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: shapes-made\nVersion: 1.0\n\n# Shapes\nA readme.\n"
    ),
}


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A distribution that fails when it is imported."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    record = tmp_path / "shapes_made-1.0.dist-info" / "RECORD"
    record.write_text("".join(f"{name},,\n" for name in FILES))
    monkeypatch.syspath_prepend(tmp_path)
    return "shapes".__eq__


def test_an_installed_package_worked_by_hand(shapes):
    found = [
        (entry.name, entry.kind, entry.doc) for entry in installed_package_entries(keep=shapes)
    ]
    assert found == [
        ("shapes", "module", "Draw shapes."),
        ("shapes readme: Shapes", "text", "A readme."),
        ("shapes.flat.square", "function", "Draw a square."),
        ("shapes.guide: Colours", "text", "Shapes have colours."),
    ]


def test_private_names_are_kept_on_request(shapes):
    entries = installed_package_entries(keep=shapes, with_private=True)
    assert "shapes._core._grid" in {entry.name for entry in entries}


def test_a_package_gives_at_most_so_many_entries_always_the_same(shapes, monkeypatch):
    whole = list(installed_package_entries(keep=shapes))
    monkeypatch.setattr(python_docs, "MAX_ENTRIES", 2)
    some = list(installed_package_entries(keep=shapes))
    assert len(some) == 2
    assert set(some) < set(whole)
    assert some == list(installed_package_entries(keep=shapes))


def test_this_package_does_not_document_itself():
    assert not list(installed_package_entries(keep="metaembed".__eq__))


def test_the_standard_library_documents_parsed_and_compiled_modules():
    wanted = {"json", "math", "csv", "python"}
    entries = list(standard_library_entries(keep=wanted.__contains__))
    assert {entry.package for entry in entries} == wanted
    assert [entry.package for entry in entries] == sorted(entry.package for entry in entries)
    by_name = {entry.name: entry for entry in entries}
    assert by_name["json.dumps"].signature.startswith("dumps(obj, *, skipkeys=False")
    assert by_name["json.dumps"].kind == "function"
    assert by_name["json.encoder.JSONEncoder.default"].kind == "method"
    assert by_name["math.sqrt"].signature == "sqrt(x, /)"
    assert by_name["json.encoder.JSONEncoder"].kind == "class"
    assert any(entry.kind == "text" for entry in entries if entry.package == "python")
    assert not any(name.rpartition(".")[2].startswith("_") for name in by_name)
