"""Reading the text of pictures, with tesseract where it is installed and without."""

import logging
import sys

import pytest
from PIL import Image, ImageDraw, ImageFont

from metaembed.errors import PageError
from metaembed.pages import OCR_HINT, ocr, ocr_available, ocr_text, read_pages
from tests.pages.samples import text_pdf, write

needs_tesseract = pytest.mark.skipif(not ocr_available(), reason="tesseract is not installed")


def scan(text):
    picture = Image.new("RGB", (1_700, 400), "white")
    font = ImageFont.load_default(size=64)
    ImageDraw.Draw(picture).text((100, 150), text, fill="black", font=font)
    return picture


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make the `tesseract` that is found one that does as the given Python code says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write_program(code):
        program = folder / "tesseract"
        program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
        program.chmod(0o755)

    return write_program


@needs_tesseract
def test_a_scan_in_a_pdf_is_read(tmp_path):
    scan("The quick brown needle").save(tmp_path / "a.pdf")
    (page,) = read_pages(tmp_path / "a.pdf", images=True)
    assert page.text == "The quick brown needle"
    assert max(page.image.size) == 1_280


@needs_tesseract
def test_a_picture_of_text_is_read(tmp_path):
    scan("Invoice 4711").save(tmp_path / "a.png")
    (page,) = read_pages(tmp_path / "a.png")
    assert page.text == "Invoice 4711"


@needs_tesseract
@pytest.mark.parametrize("size", [(1, 1), (3, 2_000), (9, 9), (300, 300)])
def test_a_picture_without_text_has_none(size):
    assert ocr_text(Image.new("RGB", size, "white")) == ""
    assert ocr_text(Image.linear_gradient("L").resize(size)) == ""


def test_without_tesseract_a_scan_has_no_text_and_a_direct_call_says_how_to_get_it(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ocr_available()
    with pytest.raises(PageError, match="apt install tesseract-ocr") as caught:
        ocr_text(scan("words"))
    assert str(caught.value) == OCR_HINT
    for name in ("a.pdf", "a.png"):
        scan("words").save(tmp_path / name)
        (page,) = read_pages(tmp_path / name)
        assert page.text == ""


def test_the_picture_is_handed_over_as_grey_pixels_to_one_thread(install):
    install("print(sys.stdin.buffer.read(2), sys.argv[1:], os.environ['OMP_THREAD_LIMIT'])")
    assert ocr_text(scan("words")) == "b'P5' ['stdin', 'stdout'] 1"


def test_large_pictures_are_scaled_down_first(install):
    install("print(sys.stdin.buffer.read(12).split()[1:3])")
    assert ocr_text(Image.linear_gradient("L").resize((8_000, 500))) == "[b'4000', b'250']"


def test_one_colour_is_not_handed_over(install):
    install("print('a speck')")
    assert ocr_text(Image.new("RGB", (100, 100), "grey")) == ""


def test_ocr_is_left_alone_where_there_is_a_text_layer_or_it_is_not_wanted(tmp_path, install):
    install("print('recognised')")
    write(tmp_path / "a.pdf", text_pdf(["Layer"], ["..."]))
    assert [page.text for page in read_pages(tmp_path / "a.pdf")] == ["Layer", "recognised"]
    pages = read_pages(tmp_path / "a.pdf", ocr=False)
    assert [page.text for page in pages] == ["Layer", "..."]
    scan("words").save(tmp_path / "a.png")
    assert [page.text for page in read_pages(tmp_path / "a.png", ocr=False)] == [""]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "sys.exit('Error opening\\ndata file')",
            r"tesseract failed \(1\): Error opening data file",
        ),
        ("time.sleep(30)", "took longer than 0.5 s"),
    ],
)
def test_a_failure_is_one_line_and_a_file_keeps_its_pages(
    tmp_path, install, monkeypatch, caplog, code, reason
):
    install(code)
    monkeypatch.setattr(ocr, "TIMEOUT", 0.5)
    with pytest.raises(PageError, match=reason) as caught:
        ocr_text(scan("words"))
    assert "\n" not in str(caught.value)
    scan("words").save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING, logger="metaembed"):
        assert [page.text for page in read_pages(tmp_path / "a.png")] == [""]
    assert "a.png, image is kept without its text." in caplog.text
