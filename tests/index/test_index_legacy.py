"""Catalogs of format version 1: read as they are, upgraded by the first writer."""

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.examples import (
    FORMAT_1,
    GROUPS,
    command,
    grid,
    make_index,
    naive_search,
    pairs,
    query,
    sql,
)

QUERY = np.array([[[1, 0, 0, 0], [0, 0, 0, 0.5]]], np.float32)

TABLES = """
    CREATE TABLE segments (number INTEGER PRIMARY KEY AUTOINCREMENT, num_rows INTEGER NOT NULL);
    CREATE TABLE planes (
        segment INTEGER NOT NULL REFERENCES segments (number),
        start INTEGER NOT NULL, stop INTEGER NOT NULL, num_bytes INTEGER NOT NULL,
        crc32 INTEGER NOT NULL, PRIMARY KEY (segment, start));
    CREATE TABLE items (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        segment INTEGER NOT NULL REFERENCES segments (number), row INTEGER NOT NULL,
        metadata TEXT NOT NULL);
    PRAGMA user_version = 1;
"""
"""As the first release had them."""


def make_legacy(path):
    """Write the catalog and the manifest of a closed index as version 1 would have them."""
    with Index.open(path) as index:
        entries = index._store.snapshot().entries
    places = {
        int(sequence): (entry.segment.number, row)
        for entry in entries
        for row, sequence in enumerate(entry.sequences_of(np.arange(entry.segment.num_rows)))
    }
    with closing(sqlite3.connect(path / "catalog.sqlite")) as old:
        items = old.execute("SELECT sequence, id, metadata FROM items").fetchall()
        counters = old.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    (path / "catalog.sqlite").unlink()
    with closing(sqlite3.connect(path / "catalog.sqlite")) as new, new:
        new.executescript(TABLES)
        for entry in entries:
            new.execute("INSERT INTO segments VALUES (?, ?)", entry.segment[:2])
            for file in entry.segment.files:
                edges = file.name.removesuffix(".npy").split("-")[1:]
                new.execute(
                    "INSERT INTO planes VALUES (?, ?, ?, ?, ?)",
                    (entry.segment.number, *map(int, edges), file.num_bytes, file.crc32),
                )
        for sequence, id, metadata in items:
            new.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?)",
                (sequence, id, *places[sequence], metadata),
            )
        new.execute("DELETE FROM sqlite_sequence")
        new.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", counters)
    manifest = json.loads((path / "manifest.json").read_text()) | {"format_version": 1}
    del manifest["sketch"]
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def path(tmp_path):
    return shutil.copytree(FORMAT_1, tmp_path / "idx")


def contents(index):
    """Everything that a reader sees."""
    ids = index.ids()
    return (
        ids,
        index.get(ids),
        index.embeddings(ids).tolist(),
        index.search(QUERY, k=99),
        len(index),
        index.stats()[:3],
        index.verify(),
    )


def test_reading_leaves_version_1_as_it_is(path):
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with Index.open(path) as index:
        # a: 0.75 (its first vector) + 0.75 / 2 (its last); b: 1 + 0.5; c: 0.5 + 0.5 / 2.
        assert pairs(index.search(QUERY)) == [[("b", 1.5), ("a", 1.125), ("c", 0.75)]]
        assert pairs(index.search(QUERY, filter={"page": {"gte": 3}})) == [[("a", 1.125)]]
        assert contents(index)[4:] == (3, (3, 2, 3), [])
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_the_first_writer_upgrades_the_catalog_and_nothing_else(path):
    manifest = (path / "manifest.json").read_bytes()
    with Index.open(path) as index, Index.open(path) as reader:
        before = contents(reader)
        index.delete([])
        assert query(path, "PRAGMA user_version") == [(2,)]
        assert contents(index) == contents(reader) == before
    # Segments of 2, 2 and 1 rows; items 1 and 4 are gone.
    assert query(path, "SELECT * FROM segments") == [
        (1, 2, 1, None),
        (2, 2, 3, None),
        (3, 1, 5, None),
    ]
    assert query(path, "SELECT * FROM deleted") == [(1,), (4,)]
    assert query(path, "SELECT sequence, id FROM items ORDER BY sequence") == [
        (2, "b"),
        (3, "c"),
        (5, "a"),
    ]
    assert query(path, "SELECT * FROM files WHERE segment = 3") == [
        (3, "plane-0-1.npy", 136, 547615723),
        (3, "plane-1-4.npy", 152, 1536411357),
    ]
    assert (path / "manifest.json").read_bytes() == manifest
    with Index.open(path, fingerprint="ab12") as index:
        assert contents(index) == before


def test_numbers_go_on_where_version_1_was(path):
    sql(
        path,
        "UPDATE sqlite_sequence SET seq = 40 WHERE name = 'items'",
        "UPDATE sqlite_sequence SET seq = 30 WHERE name = 'segments'",
    )
    with Index.open(path) as index:
        index.add(["new"], grid(1, 4, 4))
        assert query(path, "SELECT max(sequence) FROM items") == [(41,)]
        assert query(path, "SELECT max(number) FROM segments") == [(31,)]
        assert index.ids() == ["b", "c", "a", "new"]


def test_a_writer_that_fails_leaves_an_index_that_opens(path):
    with Index.open(path) as index:
        before = contents(index)
        with pytest.raises(ValueError, match="already"):
            index.add(["a"], grid(1, 4, 4))
        assert contents(index) == before
    with Index.open(path) as index:
        assert contents(index) == before


def test_an_upgrade_that_dies_leaves_version_1(path):
    crash = """
        import os, sys
        from metaembed.index import Index, legacy
        index = Index.open(sys.argv[1])
        index._store.catalog.database.execute("PRAGMA cache_size = 1")
        legacy.put_together = lambda *_: os._exit(9)
        index.delete(["a"])
    """
    with Index.open(path) as index:
        before = contents(index)
    assert subprocess.run(**command(crash, path), check=False).returncode == 9
    with Index.open(path) as index:
        assert contents(index) == before
        assert query(path, "PRAGMA user_version") == [(1,)]
        index.delete([])
        assert contents(index) == before


def test_a_reader_in_another_process_goes_on_through_the_upgrade(path):
    search = """
        import sys
        import numpy as np
        from metaembed.index import Index
        with Index.open(sys.argv[1]) as index:
            for line in sys.stdin:
                hits = index.search(np.eye(4, dtype=np.float32)[None, :2], k=99)[0]
                print(*sorted(hit.id for hit in hits), flush=True)
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    reader = subprocess.Popen(**command(search, path), **pipes)

    def seen():
        print("again", file=reader.stdin, flush=True)
        return reader.stdout.readline().split()

    with Index.open(path) as index, reader:
        assert seen() == ["a", "b", "c"]
        index.upsert(["c", "d"], grid(2, 4, 4))
        assert seen() == ["a", "b", "c", "d"]
        index.compact()
        assert seen() == ["a", "b", "c", "d"]
        reader.stdin.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_version_1_folder_without_write_permission_can_be_read():
    read = """
        import os, sys
        from metaembed.errors import IndexFormatError
        from metaembed.index import Index
        if os.geteuid() == 0:
            os.setuid(65534)
        with Index.open(sys.argv[1]) as index:
            print(*index.ids(), index.embeddings(index.ids()).shape)
            try:
                index.compact()
            except IndexFormatError as error:
                print(error)
    """
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(FORMAT_1, Path(folder) / "idx")
        for file in (*path.rglob("*"), path):
            file.chmod(0o555 if file.is_dir() else 0o444)
        path.parent.chmod(0o755)
        done = subprocess.run(**command(read, path), stdout=subprocess.PIPE, check=True)
        for file in (path, *path.rglob("*")):
            file.chmod(0o755)
    first, error = done.stdout.splitlines()
    assert first == "b c a (3, 4, 4)"
    assert error.startswith("Index 'idx' cannot be written: Permission denied.")


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "delete", "compact"]),
        st.sets(st.sampled_from("abcdef"), min_size=1, max_size=4),
    ),
    max_size=6,
)


@settings(max_examples=12, deadline=None)
@given(HISTORIES, HISTORIES)
def test_any_history_reads_alike_before_and_after_the_upgrade(first, second):
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "idx"
        index = Index.create(path, dim=4, groups=GROUPS, dtype="float16")
        for seed, (operation, ids) in enumerate([*first, ("downgrade", []), *second]):
            ids = sorted(ids)
            if operation == "downgrade":
                before = contents(index)
                index.close()
                make_legacy(path)
                index = Index.open(path)
                assert contents(index) == before
                continue
            for id in ids if operation != "compact" else []:
                expected.pop(id, None)
            if operation == "upsert":
                vectors = grid(len(ids), 4, 4, seed)
                index.upsert(ids, vectors)
                expected |= dict(zip(ids, vectors, strict=True))
            elif operation == "delete":
                index.delete(ids)
            else:
                index.compact()
            assert index.ids() == list(expected)
            assert pairs(index.search(QUERY)) == naive_search(expected, QUERY, "2x4")
            assert index.verify() == []
        index.close()


def test_gaps_and_deleted_rows_get_sequences_that_nothing_else_has(tmp_path):
    path = tmp_path / "idx"
    with make_index(path, items=8) as index:
        index.delete(["1", "4"])
        index.compact()  # items 1, 3, 4, 6, 7, 8
        index.add(["8", "9"], grid(2, 4, 4))
        index.delete(["0", "3", "7", "8"])  # the first, one in the middle, the last, and 9
    make_legacy(path)
    with Index.open(path) as index:
        index.delete([])
        assert index.ids() == ["2", "5", "6", "9"]
    found = query(path, "SELECT number, first_sequence, sequences FROM segments")
    placed = {number: (first, blob) for number, first, blob in found}
    assert placed[3] == (9, None)
    first, blob = placed[2]
    # 2, 3, 5, 6, 7, 8 would do as well: what the deleted ones were is not known any more.
    assert first == 2
    assert np.frombuffer(blob, "<i8").tolist() == [2, 3, 4, 6, 7, 8]
    assert query(path, "SELECT * FROM deleted") == [(2,), (4,), (8,), (9,)]


DAMAGE = {
    "no segment row": ("DELETE FROM segments", "lies in segment 1, which does not exist"),
    "row outside": ("UPDATE items SET row = 2 WHERE id = 'b'", "outside the 2 rows"),
    "row below": ("UPDATE items SET row = -1 WHERE id = 'b'", "outside the 2 rows"),
    "row is a text": ("UPDATE items SET row = 'x' WHERE id = 'b'", "not a number"),
    "row is a fraction": ("UPDATE items SET row = 0.5 WHERE id = 'b'", "not a number"),
    "shared row": ("UPDATE items SET segment = 1, row = 1 WHERE id = 'c'", "share a row"),
    "segment elsewhere": ("UPDATE items SET segment = 7 WHERE id = 'a'", "in segment 7, which"),
    "rows in another order": (
        "UPDATE items SET segment = 1, row = 0 WHERE id = 'c'",
        "are not in order",
    ),
    "segments in another order": (
        "UPDATE items SET sequence = sequence + 9 WHERE id = 'b'",
        "are not in order",
    ),
    "negative size": ("UPDATE planes SET num_bytes = -1", "not a record of sizes"),
    "wrong size": ("UPDATE planes SET num_bytes = num_bytes + 64", "bytes instead of"),
    "no plane": ("DELETE FROM planes WHERE start = 1", "other files than the manifest"),
    "other planes": ("UPDATE planes SET stop = 3 WHERE start = 1", "other files than"),
    "a path": ("UPDATE planes SET stop = '../x' WHERE start = 1", "other files than"),
    "a newer version": ("PRAGMA user_version = 2", "no such"),
}


@pytest.mark.parametrize(("statement", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_reported_in_one_line_and_never_upgraded(path, statement, message):
    sql(path, statement)
    for use in (lambda index: index.search(QUERY), lambda index: index.delete([])):
        with (
            pytest.raises(IndexFormatError, match=message) as caught,
            Index.open(path) as index,
        ):
            use(index)
        assert "\n" not in str(caught.value)


def test_verify_lists_what_is_wrong_with_version_1(path):
    sql(
        path,
        "UPDATE items SET row = 6 WHERE id = 'b'",
        "UPDATE items SET segment = 3, row = 0 WHERE id = 'c'",
        "UPDATE items SET metadata = '{' WHERE id = 'a'",
    )
    with Index.open(path) as index:
        assert index.verify() == [
            "Index 'idx': an item lies outside its segment (catalog.sqlite).",
            "Index 'idx': two items share a row (catalog.sqlite).",
            "Index 'idx': the metadata of an item is not JSON (catalog.sqlite).",
        ]
