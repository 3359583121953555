"""Plain text: encodings, blocks of paragraphs, and nothing left unread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.pages import Page, read_pages
from metaembed.pages.text import decode, text_pages
from tests.pages.samples import first_lost_word, write


def test_a_short_text_is_one_page(tmp_path):
    path = write(tmp_path / "a.txt", "\n\nfirst line\n\nlast line\n\n")
    assert list(read_pages(path)) == [Page("lines 3-5", None, "", "first line\n\nlast line", None)]


def test_a_long_text_is_cut_between_paragraphs():
    paragraph = "\n".join(["x" * 79] * 10)  # 800 characters
    pages = list(text_pages("\n\n".join([paragraph] * 3)))
    assert [page.place for page in pages] == ["lines 1-10", "lines 12-21", "lines 23-32"]
    assert {page.text for page in pages} == {paragraph}


def test_a_long_paragraph_is_cut_between_lines_and_a_line_never():
    pages = list(text_pages("\n".join(["x" * 799] * 2 + ["y " * 5_000] + ["z"])))
    assert [(page.place, len(page.text)) for page in pages] == [
        ("lines 1-1", 799),
        ("lines 2-2", 799),
        ("lines 3-3", 10_000),
        ("lines 4-4", 1),
    ]


def test_blank_files_have_no_pages(tmp_path):
    for name in ("a.txt", "a.md", "a.rst", "a.html", "a.py", "a.csv"):
        for content in ("", " \n\n\t\n"):
            assert list(read_pages(write(tmp_path / name, content))) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Grüße 🙂".encode(), "Grüße 🙂"),
        ("Grüße".encode("utf-8-sig"), "Grüße"),
        ("Grüße".encode("utf-16"), "Grüße"),
        (b"\xfe\xff" + "Grüße".encode("utf-16-be"), "Grüße"),
        ("Grüße".encode("utf-32"), "Grüße"),
        ("Grüße – „Du“".encode("cp1252"), "Grüße – „Du“"),
        (b"caf\xe9 \x81", "café \x81"),  # not defined in Windows-1252
        ("<meta charset='windows-1251'> Привет".encode("cp1251"), None),
        ("# -*- coding: euc-jp -*- 日本".encode("euc-jp"), None),
        (b"charset=unicode_escape \\d \xff", "charset=unicode_escape \\d ÿ"),  # not a character set
        (b"charset=cp99999 \xff", "charset=cp99999 ÿ"),
        ("Grüße, ".encode() * 9 + b"\xff", "Grüße, " * 9 + "\ufffd"),  # UTF-8 with a broken byte
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
    ],
)
def test_the_encoding_is_found_out(content, text):
    assert decode(content) == text if text else decode(content).endswith(("Привет", "日本"))


def test_rows_of_a_table_have_its_header_as_title(tmp_path):
    rows = ["name,price", *(f"thing {n},{n}" for n in range(500))]
    *_, last = read_pages(write(tmp_path / "a.csv", "\n".join(rows)))
    assert last.title == "name,price"
    assert last.text.endswith("thing 499,499")
    assert last.place.endswith("-501")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_nothing_is_left_unread(text):
    text = decode(text.encode())
    assert first_lost_word(text.split(), text_pages(text)) is None


@given(st.lists(st.sampled_from(["", " ", "word", "x " * 400, "y" * 1_600]), max_size=30))
def test_places_are_where_the_text_is(lines):
    for page in text_pages("\n".join(lines)):
        start, stop = map(int, page.place.removeprefix("lines ").split("-"))
        assert page.text == "\n".join(lines[start - 1 : stop])
        assert page.text.startswith(("word", "x", "y"))
        assert len(page.text) <= 1_500 + 100 or start == stop


def test_a_needle_at_the_very_end_is_read(tmp_path):
    path = write(tmp_path / "a.log", "some words of a line\n" * 100_000 + "needle")
    *_, last = read_pages(path)
    assert last.text.endswith("\nneedle")
    assert last.place.endswith("-100001")
