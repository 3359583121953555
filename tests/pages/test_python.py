"""Python source by definition, without running it, and nothing left unread."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.pages import read_pages
from metaembed.pages.python import python_pages
from tests.pages.samples import first_lost_word, write

SOURCE = '''\
"""A module."""

import os

# About f.
@decorated
def f(x):
    """Say."""
    return x  # why


class A(B):
    """A class."""

    limit = 3

    @property
    def size(self):
        return 1

    class Inner:
        async def run(self): pass

    limit = 4

raise SystemExit("never run")
'''


def test_each_definition_is_a_page(tmp_path):
    pages = list(read_pages(write(tmp_path / "mod.py", SOURCE)))
    assert [(page.title, page.place) for page in pages] == [
        ("mod", "lines 1-3"),
        ("mod.f", "lines 5-9"),
        ("mod.A", "lines 12-15"),
        ("mod.A.size", "lines 17-19"),
        ("mod.A.Inner", "lines 21-21"),
        ("mod.A.Inner.run", "lines 22-22"),
        ("mod.A", "lines 24-24"),
        ("mod", "lines 26-26"),
    ]
    assert pages[1].text.startswith("# About f.\n@decorated\ndef f(x):")


def test_a_package_is_named_by_its_folder(tmp_path):
    (tmp_path / "package").mkdir()
    (page,) = read_pages(write(tmp_path / "package" / "__init__.py", "x = 1"))
    assert page.title == "package"


def test_a_long_function_keeps_its_title(tmp_path):
    source = "def f():\n" + "    call_something_with(some_argument)\n" * 100
    pages = list(python_pages(source, module="mod"))
    assert len(pages) == 3
    assert {page.title for page in pages} == {"mod.f"}


@pytest.mark.parametrize(
    "source",
    [
        "def f(:\n  needle",
        "print 'Python 2'",
        "x = " + "1" * 5_000,
        "(" * 500 + "needle",
        "-" * 100_000 + "1",
        "x" + ".a" * 100_000,
        "if a: pass\n" + "elif a: pass\n" * 3_000,
        "\n".join("\t" * depth + "if a:" for depth in range(200)),
    ],
)
def test_what_does_not_parse_is_read_as_text(source):
    pages = list(python_pages(source, module="mod"))
    assert first_lost_word(source.split(), pages) is None
    assert {page.title for page in pages} == {""}


def test_a_source_above_the_limit_is_read_as_text():
    begin = time.process_time()
    pages = list(python_pages("x = 1  # words\n" * 300_000, module="mod"))
    assert time.process_time() - begin < 3
    assert pages[0].title == ""


def test_the_source_may_deserve_warnings():
    source = r"""x = "\d" is 1""" + "\nassert (x, 'always true')\n"
    assert [page.title for page in python_pages(source, module="mod")] == ["mod"]


LINES = ["", "x = 1", "# note", "@a", "def f(): pass", "class A:", "    y = 2", "    def g(self):",
         "        return '''", "'''", "if x:", "\x0c", "\\"]  # fmt: skip


@given(st.lists(st.sampled_from(LINES)).map("\n".join))
def test_nothing_is_left_unread(source):
    pages = list(python_pages(source, module="mod"))
    assert first_lost_word(source.split(), pages) is None
    assert len({page.place for page in pages}) == len(pages)
