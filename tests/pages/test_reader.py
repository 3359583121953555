"""Reading in a child process: the same pages, and no harm from files that hang or crash it."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from metaembed.errors import PageError
from metaembed.pages import Page, Reader, read_pages, reader_process
from tests.pages.samples import pdf_of, text_pdf, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses signals and /bin/sh")


def nested_pdf(levels):
    """Write a page whose content is drawn by forms that each draw the next one twice."""
    form = b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]%s/Length 12>>stream\n%s\nendstream"
    uses = b"/Resources<</XObject<</X %d 0 R>>>>"
    forms = [form % (uses % (5 + level), b"/X Do /X Do ") for level in range(levels)]
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R%s>>" % (uses % 4)
    tree = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", tree, page, *forms, form % (b"", b" " * 12)])


@pytest.fixture
def endless(tmp_path):
    """A PDF of 2 kB that keeps pdfium busy for longer than anybody waits."""
    path = write(tmp_path / "endless.pdf", nested_pdf(20))
    assert path.stat().st_size < 4_000
    return path


@pytest.fixture
def note(tmp_path):
    return write(tmp_path / "note.md", "# Title\n\nwords")


NOTE = [Page("lines 1-3", None, "Title", "# Title\n\nwords")]


@pytest.fixture(scope="module")
def shared():
    """A reader for the files that it survives."""
    with Reader() as reader:
        yield reader


@pytest.fixture
def tesseract(tmp_path, monkeypatch):
    """Make the `tesseract` that a reader started from now on finds do what a shell script says.

    Its parent is the reader's child process, which is how a test reaches into that.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write_program(script):
        program = write(folder / "tesseract", f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        program.chmod(0o755)

    return write_program


def scans(path, *, count):
    """Write a TIFF of so many pages, each larger than a pipe's buffer."""
    pages = [Image.linear_gradient("L").rotate(number) for number in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def is_same(page, other):
    if page.image is None or other.image is None:
        return page == other
    a, b = page.image, other.image
    same = (a.mode, a.size, a.tobytes()) == (b.mode, b.size, b.tobytes())
    return same and page._replace(image=None) == other._replace(image=None)


def processes():
    return {process.pid for process in multiprocessing.active_children()}


def test_a_file_is_read(shared, note):
    assert list(shared.read_pages(note)) == NOTE


@pytest.mark.parametrize("images", [False, True])
def test_pages_are_those_that_are_read_in_process(shared, tmp_path, images):
    outline = b"<</First 11 0 R/Last 11 0 R/Count 1>>"
    more = [outline, b"<</Title(Chapter)/Parent 10 0 R/Dest[6 0 R/Fit]>>"]
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "a.png")
    paths = [
        write(
            tmp_path / "a.pdf",
            text_pdf(["Hello"], ["wörld"], [], catalogue=b"/Outlines 10 0 R", more=more),
        ),
        scans(tmp_path / "a.tif", count=3),
        tmp_path / "a.png",
        write(
            tmp_path / "a.html", "<title>T</title><h1 id=top>H&#x1f600;</h1>text &#xd83d; \u2028"
        ),
        write(tmp_path / "long.txt", "\n\n".join(f"Paragraph {n}. " * 99 for n in range(99))),
        write(tmp_path / "empty.txt", ""),
        write(tmp_path / "näme\udcff.py", "'''Doc.'''\n"),
    ]
    for path in paths:
        expected = list(read_pages(path, images=images, ocr=False))
        pages = list(shared.read_pages(path, images=images, ocr=False))
        assert len(pages) == len(expected)
        assert all(map(is_same, pages, expected)), path


def test_a_relative_path_is_read_from_where_the_program_is_now(shared, note, monkeypatch):
    monkeypatch.chdir(note.parent)
    assert list(shared.read_pages(Path("note.md"))) == NOTE


def test_a_refusal_arrives_as_it_is_and_the_process_goes_on(shared, tmp_path, note):
    assert list(shared.read_pages(note)) == NOTE
    before = processes()
    for name, content in {"a.pdf": b"damaged", "a.odt": b"", "a.txt": b"\0\1"}.items():
        path = write(tmp_path / name, content)
        with pytest.raises(PageError) as expected:
            list(read_pages(path))
        with pytest.raises(PageError) as caught:
            list(shared.read_pages(path))
        assert str(caught.value) == str(expected.value)
    assert list(shared.read_pages(note)) == NOTE
    assert processes() == before


def test_a_page_that_takes_too_long_is_given_up_and_the_next_file_read(endless, note):
    with Reader(page_seconds=1) as reader:
        begin = time.monotonic()
        with pytest.raises(PageError) as caught:
            list(reader.read_pages(endless))
        assert time.monotonic() - begin < 5
        assert str(caught.value) == (
            "Reading the first page took longer than 1 s; "
            "save it anew with another program, or leave it out."
        )
        assert list(reader.read_pages(note)) == NOTE


@pytest.mark.parametrize("name", ["SEGV", "KILL"])
def test_a_crash_is_an_error_of_that_file_alone(tmp_path, note, tesseract, name):
    tesseract(f"kill -{name} $PPID")
    with Reader() as reader:
        pages = reader.read_pages(scans(tmp_path / "a.tif", count=2))
        with pytest.raises(PageError, match=rf"stopped at this file \(signal SIG{name}\): .*\.$"):
            next(pages)
        assert list(reader.read_pages(note)) == NOTE


def test_what_a_page_had_started_is_ended_with_it(tmp_path, tesseract):
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    tesseract(f"exec 3> '{tmp_path / 'fifo'}'; echo started >&3; exec sleep 60")
    with Reader(page_seconds=1) as reader, pytest.raises(PageError, match="longer than 1 s"):
        list(reader.read_pages(scans(tmp_path / "a.tif", count=1)))
    os.set_blocking(fifo, True)
    assert os.read(fifo, 100) == b"started\n"
    assert os.read(fifo, 100) == b""  # the last that could write has gone
    os.close(fifo)


def test_a_file_that_is_not_read_to_its_end_is_broken_off(tmp_path, note):
    path = scans(tmp_path / "a.tif", count=9)
    with Reader() as reader:
        pages = reader.read_pages(path, images=True, ocr=False)
        assert next(pages).place == "page 1"
        pages.close()
        pages = reader.read_pages(path, images=True, ocr=False)
        assert next(pages).place == "page 1"
        assert list(reader.read_pages(note)) == NOTE
        with pytest.raises(PageError, match="was broken off"):
            next(pages)
        assert list(reader.read_pages(note)) == NOTE


def test_a_slow_caller_holds_up_the_reading_and_is_not_to_blame(tmp_path, tesseract):
    read = tmp_path / "read"
    tesseract(f"echo page >> '{read}'")
    with Reader(page_seconds=1.5) as reader:
        pages = reader.read_pages(scans(tmp_path / "a.tif", count=9), images=True)
        assert next(pages).place == "page 1"
        time.sleep(1.8)
        # The next page is read, and waits for the pipe to take all of it.
        assert read.read_text().split() == ["page"] * 2
        assert [page.page for page in pages] == list(range(2, 10))
    assert read.read_text().split() == ["page"] * 9


def test_what_is_logged_arrives_in_the_log(tmp_path, tesseract, caplog):
    tesseract("echo 100% wrong >&2; exit 1")
    with Reader() as reader:
        list(reader.read_pages(scans(tmp_path / "a.tif", count=1)))
    assert caplog.record_tuples == [
        (
            "metaembed.pages.ocr",
            logging.WARNING,
            "a.tif, image is kept without its text. tesseract failed (1): 100% wrong",
        )
    ]


def test_a_reader_has_one_process_from_the_first_file_until_it_is_closed(note):
    before = processes()
    with Reader() as reader:
        pages = reader.read_pages(note)
        assert processes() == before
        assert list(pages) == NOTE
        (pid,) = processes() - before
        assert list(reader.read_pages(note)) == NOTE
        assert processes() - before == {pid}
    assert processes() == before
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    reader.close()
    assert list(reader.read_pages(note)) == NOTE
    reader.close()
    assert processes() == before


def test_a_process_that_has_died_unasked_is_replaced(note):
    with Reader() as reader:
        before = multiprocessing.active_children()
        assert list(reader.read_pages(note)) == NOTE
        (process,) = set(multiprocessing.active_children()) - set(before)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert list(reader.read_pages(note)) == NOTE


def test_an_interrupt_is_left_to_the_program(shared, note):
    assert list(shared.read_pages(note)) == NOTE
    (pid,) = processes()
    os.kill(pid, signal.SIGINT)
    assert list(shared.read_pages(note)) == NOTE
    assert processes() == {pid}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_process_has_neither_torch_nor_room_without_end(shared, note):
    import torch

    assert list(shared.read_pages(note)) == NOTE
    (pid,) = processes()
    assert str(Path(torch.__file__).parent) in Path("/proc/self/maps").read_text()
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    limits = Path(f"/proc/{pid}/limits").read_text().split("Max address space")[1]
    assert int(limits.split()[0]) == 4 << 30


def test_a_defect_of_a_reader_is_logged_with_its_place_and_costs_one_file(monkeypatch, caplog):
    def read_pages(path, **options):
        yield Page("page 1", 1, "", "words")
        raise LookupError("no\nsuch thing")

    monkeypatch.setattr(reader_process, "read_pages", read_pages)
    assert list(reader_process._answer(["a.pdf", False, False], 60)) == [
        (["page", "page 1", 1, "", "words", None], None),
        (
            [
                "refused",
                "The reader failed at this file (LookupError: no such thing); the log says where.",
            ],
            None,
        ),
    ]
    (record,) = caplog.records
    assert record.exc_info[1].args == ("no\nsuch thing",)


def test_a_process_that_nobody_can_stop_stops_itself():
    # An endless match runs no other thread, which could see that the other end has gone.
    code = """if True:
        import re
        from metaembed.pages.reader_process import _timed
        list(_timed((re.match("(a+)+$", "a" * 40 + "b") for _ in "1"), 0.2))
    """
    done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert done.returncode == -signal.SIGALRM


SCRIPT = """
import resource, sys
from pathlib import Path
from metaembed.errors import PageError
from metaembed.pages import Reader

resource.setrlimit(resource.RLIMIT_AS, (400 << 20, -1))
reader = Reader()
for name in sys.argv[1:]:
    try:
        print([page.place for page in reader.read_pages(Path(name))], flush=True)
    except PageError as error:
        print(error, flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Run a program that has no `if __name__ == "__main__"` and does not close its reader."""
    script = write(tmp_path / "script.py", SCRIPT)

    def run(*paths):
        command = [sys.executable, script, *paths]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return run


def test_a_program_reads_goes_on_without_memory_and_ends(start, note):
    large = write(note.parent / "large.md", "\n" * (40 << 20))
    output, _ = start(note, large, note).communicate(timeout=20)
    assert output.decode().splitlines() == [
        "['lines 1-3']",
        "Reading the file takes more than 4 GiB of memory; split it.",
        "['lines 1-3']",
    ]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_when_a_program_ends_its_reader_does_too(start, note, endless, name):
    program = start(note, endless)
    assert program.stdout.readline() == b"['lines 1-3']\n"
    time.sleep(0.3)
    program.send_signal(signal.Signals[name])
    output, _ = program.communicate(timeout=5)  # nobody holds the output any more
    assert program.returncode == -signal.Signals[name]
    assert output.count(b"Traceback") == output.count(b"KeyboardInterrupt") == (name == "SIGINT")
