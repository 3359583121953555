"""PDF pages: text, titles, pictures, forms, and files that are closed again."""

import gc
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metaembed.pages import Page, read_pages
from metaembed.pages.pdf_text import tidy
from tests.pages.samples import blank_pdf, text_pdf, write


def read(path, content, **options):
    return list(read_pages(write(path / "a.pdf", content), **options))


def test_each_page_is_read(tmp_path):
    pages = read(tmp_path, text_pdf(["Hello", "world"], [], ["Third, the last needle"]))
    assert pages == [
        Page("page 1", 1, "", "Hello\nworld", None),
        Page("page 2", 2, "", "", None),
        Page("page 3", 3, "", "Third, the last needle", None),
    ]


def test_pages_are_drawn_when_asked_for(tmp_path):
    (page,) = read(tmp_path, text_pdf(["Hello"]), images=True)
    assert page.text == "Hello"
    assert page.image.mode == "RGB"
    assert page.image.size == (989, 1_280)  # Letter
    assert page.image.getextrema() == ((0, 255),) * 3


def test_a_rotated_page_is_drawn_as_it_is_read(tmp_path):
    (page,) = read(tmp_path, blank_pdf(b"/MediaBox[0 0 600 300]/Rotate 90"), images=True)
    assert page.image.size == (640, 1_280)


def test_a_word_that_was_parted_at_a_line_end_is_whole_again(tmp_path):
    (page,) = read(tmp_path, text_pdf(["A retrie-", "val method of the Anglo-", "Saxons"]))
    assert page.text == "A retrieval method of the Anglo-Saxons"


@pytest.mark.parametrize(
    ("extracted", "text"),
    [
        ("retrie\ufffeval", "retrieval"),
        ("retrie\x02val, they", "retrieval, they"),
        ("COVID\ufffe19", "COVID-19"),
        ("it is well\ufffeknown; a well-known fact", "it is well-known; a well-known fact"),
        ("(Anglo\ufffeSaxon) AngloSaxon", "(AngloSaxon) AngloSaxon"),
        ("\ufffe", "-"),
        ("oﬃce ﬁre", "office fire"),
        ("Cafe\u0301 x² ½", "Café x² ½"),
        ("soft\u00adhyphen nul\0l zero\u200bwidth", "softhyphen null zerowidth"),
        (
            "  two   spaces\u00a0here \r\nline\r\n\r\n\r\n\r\nparagraph ",
            "two spaces here\nline\n\nparagraph",
        ),
    ],
)
def test_what_typesetting_did_is_undone(extracted, text):
    assert tidy(extracted) == text


@given(st.lists(st.text(st.characters(categories=["Lu", "Ll", "Nd"]), min_size=1)))
def test_tidying_keeps_every_word(words):
    tidied = tidy(" \r\n".join(words))
    assert tidied.split() == [tidy(word) for word in words]
    assert tidy(tidied) == tidied


def test_the_outline_gives_titles(tmp_path):
    more = [
        b"<</First 11 0 R/Last 12 0 R/Count 2>>",
        b"<</Title(Intro)/Parent 10 0 R/Next 12 0 R/Dest[4 0 R/Fit]>>",
        b"<</Title(Method)/Parent 10 0 R/First 13 0 R/Last 13 0 R/Count 1/Dest[8 0 R/Fit]>>",
        b"<</Title(Data)/Parent 12 0 R/Dest[8 0 R/Fit]>>",
    ]
    content = text_pdf(["a"], ["b"], ["c"], catalogue=b"/Outlines 10 0 R", more=more)
    assert [page.title for page in read(tmp_path, content)] == ["Intro", "Intro", "Method"]
    content = content.replace(b"Dest[8 0 R/Fit]>>", b"Dest[6 0 R/Fit]>>")
    assert [page.title for page in read(tmp_path, content)] == [
        "Intro",
        "Method",  # what begins on a page comes before what goes on there
        "Method › Data",
    ]


def test_an_endless_outline_is_survived(tmp_path):
    more = [
        b"<</First 7 0 R/Last 7 0 R/Count 1>>",
        b"<</Title(Again)/Parent 6 0 R/First 7 0 R/Next 7 0 R/Dest[4 0 R/Fit]>>",
    ]
    (page,) = read(tmp_path, text_pdf(["a"], catalogue=b"/Outlines 6 0 R", more=more))
    assert page.title == "Again"


def test_what_was_typed_into_forms_and_comments_is_read_but_no_password(tmp_path):
    form = b"/AcroForm<</Fields[6 0 R 7 0 R]/DR<</Font<</F 3 0 R>>>>/DA(/F 12 Tf)>>"
    more = [
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ada Lovelace)/Rect[9 9 99 30]/P 4 0 R>>",
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(pw)/Ff 8192/V(hunter2)/Rect[9 40 99 60]/P 4 0 R>>",
        b"<</Type/Annot/Subtype/Text/Contents(please check)/Rect[9 70 99 90]/P 4 0 R>>",
    ]
    content = text_pdf(["Name:"], catalogue=form, more=more)
    content = content.replace(b"/Contents 5 0 R", b"/Contents 5 0 R/Annots[6 0 R 7 0 R 8 0 R]")
    (page,) = read(tmp_path, content)
    assert page.text == "Name:\n\nAda Lovelace\nplease check"


def test_a_scan_is_read_without_text_where_ocr_is_not_wanted(tmp_path):
    Image.new("RGB", (850, 1_100), "grey").save(tmp_path / "a.pdf")
    (page,) = read_pages(tmp_path / "a.pdf", images=True, ocr=False)
    assert (page.place, page.text) == ("page 1", "")
    assert max(page.image.size) == 1_280


def test_a_damaged_page_is_logged_and_the_others_are_read(tmp_path, caplog):
    content = text_pdf(["one"], ["two"], ["three"]).replace(b"4 0 R 6 0 R", b"4 0 R 66 0 R")
    with caplog.at_level(logging.WARNING, logger="metaembed"):
        pages = read(tmp_path, content)
    assert [(page.place, page.text) for page in pages] == [("page 1", "one"), ("page 3", "three")]
    assert "1 of 3 pages cannot be loaded and are left out, the first is page 2." in caplog.text


OPEN_FILES = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="counts open files as Linux lists them")
@pytest.mark.parametrize("num_read", [0, 1, 2])
def test_the_file_is_closed_however_far_it_was_read(tmp_path, num_read):
    path = write(tmp_path / "a.pdf", text_pdf(["one"], ["two"]))
    before = len(list(OPEN_FILES.iterdir()))
    pages = read_pages(path, images=True)
    for _ in range(num_read):
        next(pages)
    del pages
    gc.collect()
    assert len(list(OPEN_FILES.iterdir())) == before
