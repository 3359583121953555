"""Files that are damaged, lie or would hold the reader up: each is refused in one line."""

import os
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metaembed.errors import ItemError, PageError
from metaembed.images import open_image
from metaembed.pages import SUPPORTED_SUFFIXES, read_pages
from tests.pages.samples import blank_pdf, pdf_of, text_pdf, write


def png(width, height, *, body=b"", chunks=b""):
    """Write a grey PNG that claims a size, whatever its body holds."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    end = chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + (chunk(b"zTXt", chunks) if chunks else b"") + end


ZEROS = zlib.compress(bytes(200_000_000), 9)  # 195 kB
LOCKED = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (
    b"ab" * 32,
    b"cd" * 32,
)

HOSTILE = {
    "empty.pdf": (b"", "not a readable PDF"),
    "random.pdf": (os.urandom(5_000), "not a readable PDF"),
    "cut.pdf": (text_pdf(["words"] * 50)[:300], "not a readable PDF"),
    "image.pdf": (png(1, 1), "not a readable PDF"),
    "locked.pdf": (
        pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Kids[]/Count 1>>"], LOCKED),
        "needs a password",
    ),
    "no-pages.pdf": (
        pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[8 0 R]/Count 1>>"]),
        "None of the PDF's 1 pages",
    ),
    "endless.pdf": (
        pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R]/Count 1>>"]),
        "None of the PDF's 1 pages",
    ),
    "empty.png": (b"", "not a readable picture"),
    "random.png": (os.urandom(5_000), "not a readable picture"),
    "page.png": (b"<html>", "not a readable picture"),
    "postscript.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "not a readable picture",
    ),
    "huge.png": (png(50_000, 50_000), "far more pixels"),
    "large.png": (png(12_000, 12_000), "claims 12,000 × 12,000 pixels; at most 100 million"),
    "cut.png": (png(100, 100, body=zlib.compress(b"\0")), "cannot be decoded"),
    "bomb.png": (png(1, 1, chunks=b"Comment\0\0" + ZEROS), "cannot be decoded"),
    "empty.tif": (b"", "not a readable picture"),
    "empty.webp": (b"", "not a readable picture"),
    "random.txt": (b"\0" + os.urandom(5_000), "binary file"),
    "random.html": (b"\0" + os.urandom(5_000), "binary file"),
    "utf16-without-a-mark.txt": ("words".encode("utf-16-le"), "binary file"),
}


def refusal(path):
    begin = time.monotonic()
    with pytest.raises(PageError) as caught:
        list(read_pages(path, images=True))
    assert time.monotonic() - begin < 5
    message = str(caught.value)
    assert "\n" not in message
    assert path.name not in message  # the caller says which file
    assert message.endswith(".")
    return message


def is_read_or_refused(path):
    """Read all there is; anything but a `PageError` of one line fails the test."""
    try:
        list(read_pages(path, images=True, ocr=False))
    except PageError as refused:
        return "\n" not in str(refused)
    return True


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_in_one_line(tmp_path, name):
    content, reason = HOSTILE[name]
    assert reason in refusal(write(tmp_path / name, content))


@pytest.mark.parametrize("suffix", [".pdf", ".png", ".txt", ".html", ".py"])
def test_only_regular_files_are_read(tmp_path, suffix):
    pipe, folder, gone = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "gone"))
    os.mkfifo(pipe)
    folder.mkdir()
    assert refusal(pipe) == "This is not a regular file; only regular files are read."
    assert refusal(folder) == "This is not a regular file; only regular files are read."
    assert refusal(gone) == "The file cannot be opened: it does not exist."
    loop = tmp_path / f"loop{suffix}"
    loop.symlink_to(loop)
    assert refusal(loop).startswith("The file cannot be opened: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "words")
    path.chmod(0)
    assert refusal(path) == "The file cannot be opened: permission denied."


def test_a_text_above_the_limit_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "")
    with path.open("r+b") as file:
        file.truncate((64 << 20) + 1)
    assert refusal(path) == "The file is larger than 64 MiB; split it first."


def test_a_damaged_picture_is_an_item_error_when_opened_alone(tmp_path):
    with pytest.raises(ItemError, match="not a readable picture"):
        open_image(write(tmp_path / "a.png", b""))
    with pytest.raises(ItemError, match="it does not exist"):
        open_image(tmp_path / "gone.png")


@settings(deadline=None)
@given(content=st.binary(max_size=300), suffix=st.sampled_from(sorted(SUPPORTED_SUFFIXES)))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, suffix):
    path = write(tmp_path_factory.getbasetemp() / f"any{suffix}", content)
    assert is_read_or_refused(path)


@pytest.mark.parametrize("kind", ["pdf", "png", "jpg", "gif", "webp", "bmp", "tif"])
@settings(max_examples=40, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 2_000), st.binary(max_size=4)), max_size=6))
def test_any_damage_is_survived(tmp_path_factory, kind, damage):
    folder = tmp_path_factory.getbasetemp()
    whole = folder / f"whole.{kind}"
    if not whole.exists():
        if kind == "pdf":
            write(whole, text_pdf(["one", "two"], ["three"]))
        else:
            Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(whole)
    content = bytearray(whole.read_bytes())
    for position, patch in damage:
        at = 32 + position % (len(content) - 32)  # after a claim of size, which takes its time
        content[at : at + len(patch)] = patch
    path = write(folder / f"damaged.{kind}", bytes(content))
    assert is_read_or_refused(path)


def test_a_pdf_that_claims_absurd_page_sizes_is_drawn_small(tmp_path):
    boxes = [b"0 0 10000000 10000000", b"0 0 14400 0.001", b"0 0 0 0", b"0 0 1e30 -5", b"0 0 1 1"]
    pages = [b"/MediaBox[%s]" % box for box in boxes]
    path = write(tmp_path / "a.pdf", blank_pdf(*pages))
    images = [page.image for page in read_pages(path, images=True, ocr=False)]
    assert len(images) == len(boxes)
    assert all(min(image.size) >= 1 and max(image.size) <= 1_280 for image in images)
    assert images[1].size == (1_280, 1)


def test_a_page_cropped_to_nothing_has_no_image(tmp_path):
    page = b"/MediaBox[0 0 100 100]/CropBox[200 200 300 300]"
    path = write(tmp_path / "a.pdf", blank_pdf(page))
    assert [page.image for page in read_pages(path, images=True)] == [None]
