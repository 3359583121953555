"""Repair: what is sound is kept, what is not is named, and nothing is destroyed."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from metaembed.index.checks import verify
from metaembed.index.disk import write_lock
from tests.index.examples import FORMAT_1, grid, make_index, sql

GROUPS = ["1x1", "2x4"]


@pytest.fixture
def path(tmp_path):
    """Segment 1 holds 0 to 5 without 2, segment 2 holds x and y, segment 3 holds z."""
    path = tmp_path / "idx"
    with make_index(path, groups=GROUPS) as index:
        index.delete(["2"])
        index.add(["x", "y"], grid(2, 4, 4, seed=1))
        index.add(["z"], grid(1, 4, 4, seed=2))
    return path


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def require_sound(path, ids):
    with Index.open(path) as index:
        assert index.ids() == ids
        assert index.verify() == []
        assert len(index) == len(index.search(grid(1, 2, 4), k=99)[0]) == len(ids)
        index.add(["new"], grid(1, 4, 4))
        index.compact()
        assert index.ids() == [*ids, "new"]
        assert index.verify() == []


def test_a_sound_index_is_left_as_it_is(path):
    before = files(path)
    assert Index.repair(path) == ((), ())
    assert files(path) == before
    require_sound(path, ["0", "1", "3", "4", "5", "x", "y", "z"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        flip,
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: file.write_bytes(b""),
    ],
    ids=["missing", "cut", "flipped", "a folder", "empty"],
)
def test_a_damaged_segment_is_given_up_and_kept_aside(path, damage):
    segment = path / "segments" / "2"
    damage(segment / "plane-1-4.npy")
    before = {name for name in files(segment)}
    report = Index.repair(path)
    assert report.lost == ("x", "y")
    assert report.lines[0].startswith("Segment 2 is given up. Index 'idx'")
    assert "2/plane-1-4.npy" in report.lines[0]
    assert report.lines[1:] == (
        "2 items are lost: no sound segment has their vectors.",
        "What is left of segment 2 is in damaged/2.",
        "The catalog as it was is in damaged/catalog.sqlite.",
    )
    assert all("\n" not in line for line in report.lines)
    assert {name for name in files(path / "damaged" / "2")} == before
    require_sound(path, ["0", "1", "3", "4", "5", "z"])
    assert Index.repair(str(path)) == ((), ())


def test_a_segment_that_is_missing_is_forgotten(path):
    shutil.rmtree(path / "segments" / "1")
    report = Index.repair(path)
    assert report.lost == ("0", "1", "3", "4", "5")
    assert report.lines[0].startswith("Segment 1 is given up. Index 'idx': 1/")
    assert [file.name for file in (path / "damaged").iterdir()] == ["catalog.sqlite"]
    require_sound(path, ["x", "y", "z"])


def test_without_any_segment_the_index_is_empty_and_sound(path):
    shutil.rmtree(path / "segments")
    report = Index.repair(path)
    assert len(report.lost) == 8
    require_sound(path, [])


def test_an_earlier_repair_that_was_cut_short_is_not_overwritten(path):
    (path / "damaged" / "2").mkdir(parents=True)
    (path / "damaged" / "2" / "mine").write_text("precious")
    flip(path / "segments" / "2" / "plane-0-1.npy")
    assert "What is left of segment 2 is in damaged/2-2." in Index.repair(path).lines
    assert (path / "damaged" / "2" / "mine").read_text() == "precious"
    assert (path / "damaged" / "2-2" / "plane-0-1.npy").exists()


def test_segments_that_the_catalog_does_not_describe_well_are_given_up(path):
    sql(
        path,
        "UPDATE segments SET num_rows = 7 WHERE number = 1",
        "DELETE FROM files WHERE segment = 2 AND name = 'plane-0-1.npy'",
        "UPDATE segments SET sequences = x'00' WHERE number = 3",
    )
    report = Index.repair(path)
    assert len(report.lost) == 8
    assert [line[:21] for line in report.lines[:3]] == [f"Segment {n} is given up" for n in "123"]
    assert sorted(folder.name for folder in (path / "damaged").iterdir()) == [
        "1",
        "2",
        "3",
        "catalog.sqlite",
    ]
    require_sound(path, [])


def test_items_without_a_row_and_rows_without_an_item_are_put_right(path):
    sql(
        path,
        "UPDATE items SET sequence = 50 WHERE id = 'x'",  # whose row is left over then
        "DELETE FROM items WHERE id = '5'",
        "INSERT INTO deleted VALUES (77)",
        "INSERT INTO deleted VALUES (1)",  # item 0, which is there
    )
    report = Index.repair(path)
    assert report.lost == ("x",)
    assert report.lines == (
        "1 items are lost: no sound segment has their vectors.",
        "3 rows on disk have no item; 3 were marked as deleted.",
        "The catalog as it was is in damaged/catalog.sqlite.",
    )
    require_sound(path, ["0", "1", "3", "4", "y", "z"])


@pytest.mark.parametrize("metadata", ["'{'", "'[]'", "x'ff'", "cast(x'ff' AS TEXT)", "'null'", "7"])
def test_items_whose_metadata_cannot_be_read_are_lost(path, metadata):
    sql(path, f"UPDATE items SET metadata = {metadata} WHERE id = '3'")
    report = Index.repair(path)
    assert report.lost == ("3",)
    assert report.lines[0] == "1 items are lost: their id or metadata cannot be read."
    require_sound(path, ["0", "1", "4", "5", "x", "y", "z"])


@pytest.mark.parametrize("id", ["x'00'", "cast(x'ff' AS TEXT)", "''"])
def test_items_whose_id_cannot_be_read_are_lost(path, id):
    sql(path, f"UPDATE items SET id = {id} WHERE id = '3'")
    assert len(Index.repair(path).lost) == 1
    require_sound(path, ["0", "1", "4", "5", "x", "y", "z"])


def test_what_belongs_to_nothing_is_deleted_and_what_is_not_ours_stays(path):
    segments = path / "segments"
    shutil.copytree(segments / "1", segments / "9")
    (segments / "notes").mkdir()
    (segments / "2" / "plane-0-1.npy.tmp").write_bytes(b"x")
    (path / "manifest.json.tmp").write_bytes(b"x")
    (path / "README").write_text("mine")
    assert Index.repair(path) == (
        (
            "Deleted what belongs to nothing: manifest.json.tmp, segments/2/plane-0-1.npy.tmp, "
            "segments/9.",
        ),
        (),
    )
    assert {folder.name for folder in segments.iterdir()} == {"1", "2", "3", "notes"}
    assert (path / "README").exists()


def test_damage_to_scales_and_sketches_is_damage(tmp_path):
    path = tmp_path / "idx"
    make_index(path, dtype="int8", sketch="int4").close()
    with Index.open(path) as index:
        index.add(["x"], grid(1, 4, 4))
    flip(path / "segments" / "1" / "sketch-error-1-4.npy")
    assert "sketch-error-1-4.npy differs" in Index.repair(path).lines[0]
    with Index.open(path) as index:
        assert index.ids() == ["x"]
    flip(path / "segments" / "2" / "scale-0-1.npy")
    assert Index.repair(path).lost == ("x",)


def test_sequences_with_gaps_are_kept(path):
    with Index.open(path) as index:
        index.compact()
        index.delete(["4"])
        index.add(["last"], grid(1, 4, 4))
        held = index.embeddings(["5", "x"])
    flip(path / "segments" / "5" / "plane-0-1.npy")
    sql(path, "DELETE FROM deleted")
    report = Index.repair(path)
    assert report.lost == ("last",)
    with Index.open(path) as index:
        assert np.array_equal(index.embeddings(["5", "x"]), held)
    require_sound(path, ["0", "1", "3", "5", "x", "y", "z"])


def test_version_1_is_repaired_and_upgraded(tmp_path):
    path = shutil.copytree(FORMAT_1, tmp_path / "idx")
    with closing(sqlite3.connect(path / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("INSERT INTO items VALUES (6, 'outside', 3, 9, '{}')")
        catalog.execute("INSERT INTO items VALUES (7, 'nowhere', 8, 0, '{}')")
        catalog.execute("INSERT INTO items VALUES (8, 'twice', 1, 1, '{}')")
    (path / "segments" / "2" / "plane-0-1.npy").unlink()
    report = Index.repair(path)
    # b and the item called twice claim one row, and which of them has it is not known.
    assert report.lost == ("c", "nowhere", "outside", "b", "twice")
    with Index.open(path) as index:
        assert (index.ids(), index.verify()) == (["a"], [])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "catalog.sqlite").write_bytes(b"no" * 999), "file is not a database"),
        (lambda path: (path / "catalog.sqlite").unlink(), "catalog.sqlite is missing"),
        (lambda path: sql(path, "DROP TABLE items"), "no such table"),
        (lambda path: (path / "manifest.json").unlink(), "no manifest.json"),
        (
            lambda path: sql(path, "UPDATE segments SET first_sequence = 6 WHERE number = 2"),
            "beyond repair: .*begins before another ends.*Restore catalog.sqlite",
        ),
    ],
    ids=["not SQLite", "no catalog", "no table", "no manifest", "overlap"],
)
def test_what_cannot_be_repaired_is_said_in_one_line_and_left_alone(path, damage, message):
    flip(path / "segments" / "3" / "plane-0-1.npy")
    damage(path)
    before = files(path)
    with pytest.raises(IndexFormatError, match=message) as caught:
        Index.repair(path)
    assert "\n" not in str(caught.value)
    assert files(path) == before
    assert not (path / "damaged").exists()


def test_a_catalog_with_a_broken_page_is_beyond_repair(path):
    with Index.open(path) as index:
        index.add(
            [f"many-{n}" for n in range(400)],
            np.zeros((400, 4, 4)),
            [{"text": "x" * 200}] * 400,
        )
    content = bytearray((path / "catalog.sqlite").read_bytes())
    content[-4096 * 3 : -4096 * 2] = bytes(4096)
    (path / "catalog.sqlite").write_bytes(content)
    with pytest.raises(IndexFormatError, match="catalog") as caught:
        Index.repair(path)
    assert "\n" not in str(caught.value)


def test_only_one_writer_repairs(path):
    flip(path / "segments" / "3" / "plane-0-1.npy")
    with (
        write_lock(path / "lock", of="idx"),
        pytest.raises(IndexFormatError, match="being written by another"),
    ):
        Index.repair(path)


def test_an_open_reader_sees_the_repair(path):
    with Index.open(path) as reader:
        assert len(reader.search(grid(1, 2, 4), k=99)[0]) == 8
        flip(path / "segments" / "3" / "plane-0-1.npy")
        Index.repair(path)
        assert len(reader.search(grid(1, 2, 4), k=99)[0]) == 7


def test_a_repair_with_a_wrong_manifest_can_be_taken_back(path):
    """Every segment is then damaged, by what the manifest says of them."""
    before, manifest = files(path), json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"dim": 5}))
    assert len(Index.repair(path).lost) == 8
    for number in "123":
        (path / "damaged" / number).rename(path / "segments" / number)
    (path / "damaged" / "catalog.sqlite").replace(path / "catalog.sqlite")
    (path / "damaged").rmdir()
    (path / "manifest.json").write_bytes(before["manifest.json"])
    assert files(path) == before
    require_sound(path, ["0", "1", "3", "4", "5", "x", "y", "z"])


def test_verifying_tells_how_far_it_is(path):
    told = []
    with Index.open(path) as index:
        index.verify(progress=lambda *one: told.append(one))
    sizes = [file.stat().st_size for file in (path / "segments").rglob("*.npy")]
    assert told == sorted(told)
    assert told[-1] == (sum(sizes), sum(sizes))
    assert len(told) == len(sizes)


def test_everything_that_is_wrong_is_listed_although_the_index_does_not_open(path):
    (path / "segments" / "1" / "plane-0-1.npy").unlink()
    flip(path / "segments" / "1" / "plane-1-4.npy")
    (path / "segments" / "2" / "plane-0-1.npy").write_bytes(b"")
    flip(path / "segments" / "3" / "plane-0-1.npy")
    sql(
        path,
        "UPDATE segments SET num_rows = 0 WHERE number = 2",
        "UPDATE items SET metadata = '{' WHERE id = '4'",
        "UPDATE sqlite_sequence SET seq = 'x' WHERE name = 'items'",
    )
    with pytest.raises(IndexFormatError, match="is damaged.*`metaembed index repair`"):
        Index.open(path)
    assert verify(path) == [
        "Index 'idx': segment 2 has 0 rows (catalog.sqlite).",
        "Index 'idx': the metadata of an item is not JSON (catalog.sqlite).",
        "Index 'idx': the last of its items has number 'x' (catalog.sqlite).",
        "Index 'idx': 1/plane-0-1.npy is missing.",
        "Index 'idx': 1/plane-1-4.npy differs from its checksum.",
        "Index 'idx': 3/plane-0-1.npy differs from its checksum.",
    ]
    (path / "manifest.json").write_text("{")
    shutil.rmtree(path / "segments")
    lines = verify(path)
    assert "manifest.json is not valid" in lines[0]
    assert lines[1] == "Index 'idx': its folder 'segments' is missing."
    assert len(lines) == 5
    (path / "catalog.sqlite").unlink()
    assert verify(path)[2:] == ["Index 'idx': catalog.sqlite is missing."]


@pytest.fixture
def path_with_texts(tmp_path):
    path = tmp_path / "idx"
    with make_index(path, items=3, groups=GROUPS) as index:
        texts = ["a whale in the sea", "the price of bread", "a fox and a whale"]
        index.add(["x", "y", "z"], grid(3, 4, 4), texts=texts)
    return path


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE texts_docsize SET id = 99 WHERE id = 5",
        "DELETE FROM texts_docsize",
        "DELETE FROM texts_data WHERE id > 1",
        "UPDATE texts_data SET block = zeroblob(length(block))",
        "DELETE FROM texts_config",
        "DROP TABLE texts_idx",
        "DROP TABLE texts_data",
    ],
)
def test_full_text_search_is_verified_and_taught_anew(path_with_texts, statement):
    path = path_with_texts
    sql(path, statement)
    assert [line for line in verify(path) if "full-text search does not know its texts" in line]
    assert Index.repair(path) == (
        (
            "Full-text search did not know its texts; it has read them anew.",
            "The catalog as it was is in damaged/catalog.sqlite.",
        ),
        (),
    )
    with Index.open(path) as index:
        assert index.verify() == []
        assert index.texts(["x", "0"]) == ["a whale in the sea", None]
        best = index.search(np.zeros((1, 2, 4)), texts=["bread"], k=1)
        assert best[0][0].id == "y"
    assert Index.repair(path) == ((), ())


def test_of_texts_only_those_that_cannot_be_read_are_lost(path_with_texts):
    path = path_with_texts
    sql(path, "UPDATE texts_content SET c0 = CAST(x'80' AS TEXT) WHERE id = 5")
    report = Index.repair(path)
    assert "1 texts cannot be read and are lost; their items are not." in report.lines
    assert report.lost == ()
    with Index.open(path) as index:
        assert index.verify() == []
        assert index.texts(["x", "y", "z"]) == ["a whale in the sea", None, "a fox and a whale"]


def test_texts_are_verified_beside_a_writer(path_with_texts):
    before = files(path_with_texts)
    with closing(sqlite3.connect(path_with_texts / "catalog.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert verify(path_with_texts) == []
    assert files(path_with_texts) == before


@pytest.mark.parametrize(
    ("statement", "mended"),
    [
        ("UPDATE sqlite_sequence SET seq = 9223372036854775807", ["segments", "items"]),
        ("UPDATE sqlite_sequence SET seq = 4611686018427387903 WHERE name = 'items'", ["items"]),
        ("UPDATE sqlite_sequence SET seq = 'x' WHERE name = 'segments'", ["segments"]),
        ("UPDATE sqlite_sequence SET seq = -1 WHERE name = 'segments'", ["segments"]),
        ("INSERT INTO deleted VALUES (9223372036854775807)", []),
        ("UPDATE items SET sequence = 9223372036854775807 WHERE id = 'z'", []),
    ],
)
def test_numbers_from_which_nothing_can_go_on_are_put_right(path, statement, mended):
    shutil.rmtree(path / "segments" / "3")
    sql(path, statement)
    report = Index.repair(path)
    said = [f"The number of the last of the {counter} was wrong." for counter in mended]
    assert [line for line in report.lines if line.startswith("The number")] == said
    assert report.lost == ("z",)
    require_sound(path, ["0", "1", "3", "4", "5", "x", "y"])
    # 3 was a segment's once and must not be another's.
    assert not (path / "segments" / "3").exists()


def test_a_folder_that_cannot_be_looked_into_is_said(path, tmp_path):
    link = tmp_path / "loop"
    link.symlink_to("loop")
    with Index.open(path) as index:
        for function in (
            lambda: Index.open(tmp_path / ("x" * 300)),
            lambda: Index.open(link),
            lambda: Index.create(tmp_path / ("x" * 300), dim=4, groups=GROUPS),
            lambda: Index.create(link, dim=4, groups=GROUPS),
            lambda: Index.repair(link),
            lambda: index.copy(link),
            lambda: index.copy(tmp_path / ("x" * 300)),
        ):
            with pytest.raises(IndexFormatError) as caught:
                function()
            assert str(caught.value).isprintable()
    assert all("Too many levels" in line for line in verify(link))
