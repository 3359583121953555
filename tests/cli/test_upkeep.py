"""`metaembed index COMMAND`: verify, repair, compact, shrink and merge, beside `index FOLDER`."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from metaembed.index import Index
from metaembed.ledger import Ledger
from metaembed.model import MetaEmbed
from tests.cli.examples import GROUPS, one_line_error

LEDGER = "folder.sqlite"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for word in ("whales", "prices", "fox"):
        (folder / f"{word}.txt").write_text(f"a page about {word}\n")
    return folder


@pytest.fixture
def bring(run, model):
    """Run `metaembed index FOLDER`; returns its report."""

    def bring(folder, out):
        code, printed, err = run("index", folder, "--out", out, "--model", model, "--json")
        assert code == 0, err
        return json.loads(printed)

    return bring


@pytest.fixture
def idx(bring, folder, tmp_path):
    """Segment 1 holds whales, prices and the fox; segment 2 the dog."""
    bring(folder, tmp_path / "idx")
    (folder / "dog.txt").write_text("a page about a dog\n")
    bring(folder, tmp_path / "idx")
    return tmp_path / "idx"


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def ids(path):
    with Index.open(path) as index:
        return sorted(index.ids())


def ledger(path, *statements):
    with closing(sqlite3.connect(path / LEDGER)) as database, database:
        return [database.execute(statement).fetchall() for statement in statements]


# Which command it is


def test_a_folder_comes_first_or_last_and_needs_no_name_of_a_command(run, folder, model, tmp_path):
    assert run("index", folder, "--out", tmp_path / "a", "--model", model)[0] == 0
    assert run("index", "--out", tmp_path / "b", "--model", model, folder)[0] == 0
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    assert run("index")[0] == run("index", folder)[0] == 2


def test_a_folder_called_like_a_command_is_given_with_its_path(
    run, folder, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder.rename("verify")
    assert run("index", "./verify", "--out", "a", "--model", model)[0] == 0
    assert run("index", "--out", "b", "--model", model, "verify")[0] == 0
    assert "no index at 'verify'" in one_line_error(run("index", "verify", "verify"))
    code, out, _ = run("index", "verify", "a")
    assert (code, "is sound" in out) == (0, True)


def test_help_shows_the_folder_and_the_commands(run):
    code, out, _ = run("index", "--help")
    assert code == 0
    for word in ("--out", "--dtype", "./verify", "repair", "compact", "shrink", "merge"):
        assert word in out
    code, out, _ = run("index", "shrink", "--help")
    assert code == 0
    assert "index shrink" in out
    assert "--budget" in out


def test_a_mistyped_command_is_told_from_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean `metaembed index verify`" in one_line_error(run("index", "verfy", "x"))
    (tmp_path / "verfy").mkdir()
    assert "no file" in one_line_error(run("index", "verfy", "--out", "x"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "NONE"),
        ("repair", "NONE"),
        ("compact", "NONE"),
        ("shrink", "NONE", "--out", "o"),
        ("merge", "NONE", "--out", "o"),
    ],
)
def test_without_an_index_there_is_one_line(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no index at 'NONE'" in one_line_error(run("index", *arguments))
    assert not any(tmp_path.iterdir())


def test_upkeep_imports_no_model_library(idx, tmp_path):
    code = (
        "import sys\n"
        "from metaembed.cli import main\n"
        f"for args in (['verify', {str(idx)!r}], ['repair', {str(idx)!r}],"
        f" ['shrink', {str(idx)!r}, '--out', {str(tmp_path / 'small')!r}, '--dtype', 'int8']):\n"
        "    sys.argv = ['metaembed', 'index', *args]\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code, args\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Verify


def test_a_sound_index_is_said_to_be(run, idx):
    code, out, _ = run("index", "verify", idx)
    assert code == 0
    assert out.startswith(f"{idx} is sound: ")
    code, out, _ = run("index", "verify", idx, "--json")
    assert (code, json.loads(out)) == (0, {"index": str(idx), "sound": True, "problems": []})


def test_every_damaged_file_is_a_line_and_the_exit_code_is_1(run, idx):
    flip(idx / "segments" / "1" / "plane-0-1.npy")
    flip(idx / "segments" / "2" / "plane-4-8.npy")
    code, out, err = run("index", "verify", idx)
    assert code == 1
    assert [line.split()[2] for line in out.splitlines()] == ["1/plane-0-1.npy", "2/plane-4-8.npy"]
    assert f"metaembed index repair {idx}" in err
    code, out, _ = run("index", "verify", idx, "--json")
    assert (code, json.loads(out)["sound"], len(json.loads(out)["problems"])) == (1, False, 2)


def test_an_index_that_does_not_open_is_a_problem_too(run, idx):
    (idx / "segments" / "1" / "plane-0-1.npy").unlink()
    code, out, _ = run("index", "verify", idx)
    assert (code, len(out.splitlines())) == (1, 1)
    assert "1/plane-0-1.npy is missing" in out


def test_an_index_that_does_not_open_is_read_to_its_end(run, idx):
    (idx / "segments" / "1" / "plane-0-1.npy").unlink()
    flip(idx / "segments" / "1" / "plane-1-4.npy")
    flip(idx / "segments" / "2" / "plane-4-8.npy")
    (idx / LEDGER).write_bytes(b"no" * 999)
    code, out, err = run("index", "verify", idx)
    assert code == 1
    lines = out.splitlines()
    assert lines[:3] == [
        "Index 'idx': 1/plane-0-1.npy is missing.",
        "Index 'idx': 1/plane-1-4.npy differs from its checksum.",
        "Index 'idx': 2/plane-4-8.npy differs from its checksum.",
    ]
    assert "folder.sqlite of the index is damaged" in lines[3]
    assert len(lines) == 4
    assert f"metaembed index repair {idx}" in err


@pytest.mark.parametrize("command", ["verify", "repair", "compact"])
def test_a_folder_that_cannot_be_looked_into_is_one_line(run, command, tmp_path):
    assert "too long" in one_line_error(run("index", command, tmp_path / ("x" * 300)))


def test_a_ledger_that_lists_what_the_index_does_not_have_is_a_problem(run, idx):
    with Index.open(idx) as index:
        index.delete(index.ids()[:1])
    code, out, _ = run("index", "verify", idx)
    assert code == 1
    assert "1 passages that folder.sqlite lists are not in the index" in out


def test_verify_writes_nothing(run, idx):
    for path in [idx, *idx.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert run("index", "verify", idx)[0] == 0


# Repair


def test_what_a_repair_loses_is_told_and_encoded_again(run, bring, folder, idx):
    before, kept = ids(idx), ids(idx)[0]
    assert kept.startswith("dog.txt")
    flip(idx / "segments" / "1" / "plane-1-4.npy")
    code, out, err = run("index", "repair", idx)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("Segment 1 is given up.")
    assert "What is left of segment 1 is in damaged/1." in lines
    assert any(line.startswith("3 passages are forgotten in folder.sqlite") for line in lines)
    assert lines[-1].startswith("Lost 3 items: 'fox.txt#")
    assert err.strip() == f"Next: metaembed index FOLDER --out {idx}"
    assert (idx / "damaged" / "1" / "plane-1-4.npy").exists()
    assert ids(idx) == [kept]
    assert run("index", "verify", idx)[0] == 0
    report = bring(folder, idx)
    assert (report["unchanged"], report["encoded"]) == (1, 3)
    assert ids(idx) == before
    assert bring(folder, idx)["unchanged"] == 4


def test_a_repair_reports_in_json(run, idx):
    flip(idx / "segments" / "2" / "plane-0-1.npy")
    code, out, _ = run("index", "repair", idx, "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"index", "lines", "lost", "forgotten"}
    assert (len(found["lost"]), found["forgotten"]) == (1, 1)


def test_of_many_lost_items_a_few_are_shown(run, bring, folder, idx):
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"a page {number}\n")
    bring(folder, idx)
    flip(idx / "segments" / "3" / "plane-0-1.npy")
    out = run("index", "repair", idx)[1]
    assert out.splitlines()[-1].endswith("and 2 more.")


def test_of_a_file_in_several_passages_only_what_is_lost_is_encoded_again(run, bring, folder, idx):
    (folder / "long.txt").write_text("\n\n".join(f"whales {n} " * 60 for n in range(3)))
    bring(folder, idx)
    with Index.open(idx) as index:
        parts = [id for id in index.ids() if id.startswith("long.txt")]
        index.delete(parts[1:])
    assert len(parts) > 3
    assert f"{len(parts) - 1} passages are forgotten" in run("index", "repair", idx)[1]
    report = bring(folder, idx)
    assert (report["encoded"], report["kept"]) == (len(parts) - 1, 1)


def test_nothing_to_repair_is_said_and_changes_nothing(run, bring, folder, idx):
    code, out, _ = run("index", "repair", idx)
    assert (code, out) == (0, f"Nothing to repair: {idx} is sound.\n")
    assert not (idx / "damaged").exists()
    assert bring(folder, idx)["unchanged"] == 4


def test_what_is_beyond_repair_is_one_line(run, idx):
    (idx / "catalog.sqlite").write_bytes(b"damaged" * 1000)
    before = (idx / LEDGER).read_bytes()
    assert "catalog" in one_line_error(run("index", "repair", idx))
    assert (idx / LEDGER).read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 999),
        lambda path: path.write_bytes(b""),
        lambda path: ledger(path.parent, "DROP TABLE passages"),
    ],
    ids=["not SQLite", "empty", "no table"],
)
def test_a_damaged_ledger_is_put_aside_and_the_folder_read_again(
    run, bring, folder, idx, model, damage
):
    damage(idx / LEDGER)
    (idx / f"{LEDGER}-journal").touch()
    code, out, _ = run("index", "verify", idx)
    assert (code, len(out.splitlines())) == (1, 1)
    assert "folder.sqlite of the index is damaged" in out
    code, out, _ = run("index", "repair", idx)
    assert (code, len(out.splitlines())) == (0, 1)
    assert "damaged/folder.sqlite" in out
    assert not list(idx.glob("folder.sqlite*"))
    assert bring(folder, idx)["encoded"] == 4
    assert run("index", "verify", idx)[0] == 0


def test_a_ledger_that_is_in_use_is_not_taken_for_a_damaged_one(run, idx):
    with closing(sqlite3.connect(idx / LEDGER, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in one_line_error(run("index", "repair", idx))
    assert (idx / LEDGER).exists()


def test_a_ledger_of_a_newer_format_stops_a_repair_before_it_begins(run, idx):
    ledger(idx, "PRAGMA user_version = 99")
    flip(idx / "segments" / "1" / "plane-1-4.npy")
    assert "Upgrade metaembed" in one_line_error(run("index", "repair", idx))
    assert not (idx / "damaged").exists()


# Compact


def test_compacting_tells_what_it_saved(run, idx):
    with Index.open(idx) as index:
        kept = index.ids()[1:]
        index.delete(index.ids()[:1])
    code, out, _ = run("index", "compact", idx)
    assert code == 0
    assert "2 segments and 1 deleted rows" in out
    assert "now 1 and 0" in out
    assert ids(idx) == sorted(kept)


# Shrink


def test_a_shrunk_copy_is_smaller_and_finds_the_same(run, idx, tmp_path):
    small = tmp_path / "small"
    code, out, _ = run("index", "shrink", idx, "--out", small, "-b", "2x4", "--dtype", "int8")
    assert code == 0
    assert "4 items at 2x4 in int8" in out
    found = json.loads(run("info", small, "--json")[1])
    assert found["groups"] == ["1x1", "2x4"]
    assert found["bytes_per_item"] == {"1x1": 20, "2x4": 80}  # 16 numbers of a byte, and a scale
    assert ids(small) == ids(idx)
    _, out, _ = run("search", small, "fox", "--json")
    assert {json.loads(line)["id"] for line in out.splitlines()} == set(ids(idx))


def test_a_copy_may_have_a_sketch_or_lose_it(run, idx, tmp_path):
    one, two, three = (tmp_path / name for name in "123")
    assert "with a sketch in int4" in run("index", "shrink", idx, "--out", one, "--sketch=int4")[1]
    assert run("search", one, "whales", "--cascade", "~4x8:20")[0] == 0
    run("index", "shrink", one, "--out", two)
    run("index", "shrink", one, "--out", three, "--sketch", "none")
    sketches = [json.loads(run("info", path, "--json")[1])["sketch"] for path in (one, two, three)]
    assert sketches == ["int4", "int4", None]


def test_a_shrunk_copy_is_kept_up_to_date_by_its_folder(run, bring, folder, idx, tmp_path):
    small = tmp_path / "small"
    run("index", "shrink", idx, "--out", small, "--budget", "2x4", "--dtype", "int8")
    assert bring(folder, small)["unchanged"] == 4
    (folder / "fox.txt").write_text("a page about three reports\n")
    (folder / "dog.txt").unlink()
    report = bring(folder, small)
    assert (report["encoded"], report["removed"], report["unchanged"]) == (1, 1, 2)
    assert run("index", "verify", small)[0] == 0
    # The same as of an index shrunk after the change.
    bring(folder, idx)
    run("index", "shrink", idx, "--out", tmp_path / "after", "--budget", "2x4", "--dtype", "int8")
    assert ids(small) == ids(tmp_path / "after")
    with Index.open(small) as index, Index.open(tmp_path / "after") as after:
        some = ids(small)
        np.testing.assert_allclose(index.embeddings(some), after.embeddings(some), atol=0.05)


def test_the_ledger_of_a_copy_lists_no_more_than_the_copy_has(run, bring, folder, idx, tmp_path):
    with Index.open(idx) as index:  # as a run over the folder does while it is copied
        index.delete(index.ids()[:1])
    run("index", "shrink", idx, "--out", tmp_path / "small")
    assert run("index", "verify", tmp_path / "small")[0] == 0
    assert bring(folder, tmp_path / "small")["encoded"] == 1


def test_a_ledger_of_version_1_is_copied_and_upgraded(run, bring, folder, idx, tmp_path):
    ledger(idx, "DROP TABLE parts", "PRAGMA user_version = 1")
    run("index", "shrink", idx, "--out", tmp_path / "small")
    assert ledger(idx, "PRAGMA user_version") == [[(1,)]]
    assert bring(folder, tmp_path / "small")["unchanged"] == 4
    assert bring(folder, idx)["unchanged"] == 4


def test_an_index_that_no_folder_made_is_copied_without_a_ledger(run, idx, tmp_path):
    (idx / LEDGER).unlink()
    assert run("index", "shrink", idx, "--out", tmp_path / "small")[0] == 0
    assert not (tmp_path / "small" / LEDGER).exists()


def test_an_index_is_copied_from_a_folder_without_write_permission(run, bring, folder, idx):
    for path in [idx, *idx.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = idx.parent / "small"
    assert run("index", "shrink", idx, "--out", out)[0] == 0
    assert bring(folder, out)["unchanged"] == 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--budget", "4x16"), "larger than"),
        (("--budget", "four"), "four"),
        (("--dtype", "int8", "--sketch", "int8"), "not smaller"),
    ],
)
def test_a_copy_that_cannot_be_made_is_one_line_and_leaves_nothing(
    run, idx, tmp_path, arguments, problem
):
    result = run("index", "shrink", idx, "--out", tmp_path / "small", *arguments)
    assert problem in one_line_error(result)
    assert not (tmp_path / "small").exists()


def test_a_copy_overwrites_nothing(run, idx, folder):
    assert "exists already" in one_line_error(run("index", "shrink", idx, "--out", folder))
    assert len(list(folder.iterdir())) == 4


def test_a_damaged_ledger_is_not_copied(run, idx, tmp_path):
    (idx / LEDGER).write_bytes(b"no database" * 999)
    error = one_line_error(run("index", "shrink", idx, "--out", tmp_path / "small"))
    assert "metaembed index repair" in error
    assert not (tmp_path / "small").exists()


# Merge


@pytest.fixture
def other(bring, tmp_path):
    """An index of another folder, with a picture."""
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "model.txt").write_text("a page about a model\n")
    Image.new("RGB", (20, 10), "red").save(folder / "red.png")
    bring(folder, tmp_path / "other")
    return tmp_path / "other"


def test_merged_indexes_are_searched_as_one(run, idx, other, tmp_path):
    out = tmp_path / "all"
    code, printed, _ = run("index", "merge", idx, other, "--out", out)
    assert code == 0
    assert "holds 5 items" in printed
    assert ids(out) == sorted(ids(idx) + ids(other))
    _, printed, _ = run("search", out, "a model", "--json", "-k", "9")
    assert {json.loads(line)["id"] for line in printed.splitlines()} == set(ids(out))
    assert run("index", "verify", out)[0] == 0


def test_what_was_merged_belongs_to_no_folder(run, folder, idx, other, model, tmp_path):
    run("index", "merge", idx, other, "--out", tmp_path / "all")
    before = ids(tmp_path / "all")
    run("index", "shrink", tmp_path / "all", "--out", tmp_path / "copy")
    for path in (tmp_path / "all", tmp_path / "copy"):
        error = one_line_error(run("index", folder, "--out", path, "--model", model))
        assert "merged from 'idx', 'other' and belongs to no folder" in error
        assert ids(path) == before


def test_thumbnails_are_merged(run, idx, other, tmp_path):
    run("index", "merge", idx, other, "--out", tmp_path / "all")
    with closing(Ledger(tmp_path / "all")) as merged, closing(Ledger(other)) as part:
        assert merged.thumbnail("red.png") == part.thumbnail("red.png") is not None
        assert merged.sources() == set()


def test_the_thumbnail_of_a_replaced_page_goes_with_it(run, model, tmp_path):
    for name, colour, option in (("a", "red", "--thumbnails"), ("b", "blue", "--no-thumbnails")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 10), colour).save(tmp_path / name / "cat.png")
        (tmp_path / name / "cat.txt").write_text("a page\n")
        run("index", tmp_path / name, "--out", tmp_path / f"{name}.idx", "--model", model, option)
        with Index.open(tmp_path / f"{name}.idx") as index:
            index.add(["cat.png"], np.ones((1, 8, 16)))  # as a model that sees would
        ledger(tmp_path / f"{name}.idx", "INSERT INTO passages VALUES ('cat.png', 'cat.png', '')")
    out = tmp_path / "all"
    run("index", "merge", tmp_path / "a.idx", tmp_path / "b.idx", "--out", out, "--replace")
    with closing(Ledger(out)) as merged:
        assert merged.thumbnail("cat.png") is None


def test_shared_ids_are_an_error_unless_they_may_be_replaced(run, bring, folder, idx, tmp_path):
    out, newer = tmp_path / "all", tmp_path / "newer"
    (folder / "new.txt").write_text("a page three\n")
    bring(folder, newer)
    error = one_line_error(run("index", "merge", idx, newer, "--out", out))
    assert "Index 'newer' has 4 ids" in error
    assert "--replace" in error
    assert not out.exists()
    assert run("index", "merge", idx, newer, "--out", out, "--replace")[0] == 0
    assert ids(out) == ids(newer)


def test_indexes_that_differ_are_one_line_and_nothing_is_left_behind(
    run, idx, other, folder, bert_folder, tmp_path
):
    run("index", "shrink", other, "--out", tmp_path / "small", "--budget", "2x4")
    result = run("index", "merge", idx, tmp_path / "small", "--out", tmp_path / "all")
    assert "'idx' and 'small' differ in their groups" in one_line_error(result)
    made = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS, seed=5
    )
    made.save_pretrained(str(tmp_path / "model"))
    run("index", folder, "--out", tmp_path / "foreign", "--model", tmp_path / "model")
    result = run("index", "merge", idx, tmp_path / "foreign", "--out", tmp_path / "all")
    assert "differ in their fingerprint" in one_line_error(result)
    assert not (tmp_path / "all").exists()


def test_a_merge_that_fails_half_way_leaves_nothing(run, idx, other, tmp_path):
    flip(next((other / "segments").glob("*/plane-4-8.npy")))
    assert "checksum" in one_line_error(
        run("index", "merge", idx, other, "--out", tmp_path / "all")
    )
    assert not (tmp_path / "all").exists()


def test_a_merged_index_takes_the_type_of_the_first(run, idx, other, tmp_path):
    run("index", "shrink", other, "--out", tmp_path / "small", "--dtype", "int8")
    assert "in int8" in run("index", "merge", tmp_path / "small", idx, "--out", tmp_path / "all")[1]
    shutil.rmtree(idx)
    assert run("index", "verify", tmp_path / "all")[0] == 0
