"""Which files of a folder are found, and which reader reads them."""

import os
import subprocess
import sys

import pytest

from metaembed.errors import PageError
from metaembed.pages import SUPPORTED_SUFFIXES, find_files, read_pages
from tests.pages.samples import write


def names(folder):
    return [path.relative_to(folder).as_posix() for path in find_files(folder)]


def test_supported_files_are_found_in_every_folder_sorted(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z.txt", "b/c/scan.PDF", "b/photo.JPG", "README", "b/program.exe", "data.npy"):
        write(tmp_path / name, "")
    assert names(tmp_path) == ["README", "b/c/scan.PDF", "b/photo.JPG", "z.txt"]


def test_hidden_and_generated_folders_are_left_out(tmp_path):
    for name in (".git", ".hidden", "__pycache__", "node_modules", "kept"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.txt", "a")
    write(tmp_path / ".hidden.txt", "a")
    assert names(tmp_path) == ["kept/a.txt"]


def test_a_hidden_folder_may_itself_be_asked_for(tmp_path):
    (tmp_path / ".notes").mkdir()
    write(tmp_path / ".notes" / "a.txt", "a")
    assert names(tmp_path / ".notes") == ["a.txt"]


def test_links_are_followed_within_the_folder_only_and_never_in_circles(tmp_path):
    secret = write(tmp_path / "secret.txt", "secret")
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "b.txt", "b")
    folder = tmp_path / "folder"
    (folder / ".store").mkdir(parents=True)
    stored = write(folder / ".store" / "0123", "stored")
    write(folder / "a.txt", "a")
    (folder / "outside.txt").symlink_to(secret)
    (folder / "outside").symlink_to(tmp_path / "elsewhere")
    (folder / "again.txt").symlink_to(folder / "a.txt")
    (folder / "kept.txt").symlink_to(stored)
    (folder / "kept-again.txt").symlink_to(stored)
    (folder / "gone.txt").symlink_to(folder / "nothing")
    (folder / "itself.txt").symlink_to(folder / "itself.txt")
    (folder / "loop").symlink_to(folder)
    assert names(folder) == ["a.txt", "kept-again.txt"]


def test_pipes_are_not_found(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    assert names(tmp_path) == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    write(tmp_path / "a.txt", "a")
    with pytest.raises(PageError, match="it does not exist"):
        find_files(tmp_path / "nothing")
    with pytest.raises(PageError, match="it is not a folder"):
        find_files(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", sorted(SUPPORTED_SUFFIXES))
def test_every_supported_suffix_has_a_reader(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", b"\x93NUMPY\0")
    with pytest.raises(PageError, match=r"not a readable PDF|not a readable picture|binary file"):
        list(read_pages(path))


@pytest.mark.parametrize("name", ["a.npy", "a", "README.exe", "a.pdf.zip"])
def test_other_files_are_refused(tmp_path, name):
    with pytest.raises(PageError, match="There is no reader for"):
        list(read_pages(write(tmp_path / name, "words")))


def test_reading_loads_no_model_library():
    code = (
        "import sys, metaembed.pages; "
        "print([name for name in ('torch', 'transformers', 'pypdfium2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
