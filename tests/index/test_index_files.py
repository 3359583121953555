"""The files of an index: the format, damage, crashes, and several processes at once."""

import contextlib
import gc
import json
import os
import shutil
import subprocess
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index, catalog, hits, npy, planes, segments
from metaembed.index.disk import write_lock
from tests.index.examples import (
    FORMAT_1,
    FORMAT_2,
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


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "idx"
    make_index(path, model="tiny", fingerprint="ab12").close()
    return path


@pytest.fixture
def path(original, tmp_path):
    return shutil.copytree(original, tmp_path / "idx")


def talk_to(code, *arguments):
    """Start another process, with pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(**command(code, *arguments), **pipes)


def test_format_version_1_opens_for_ever(tmp_path):
    shutil.copytree(FORMAT_1, tmp_path / "idx")
    with Index.open(tmp_path / "idx", fingerprint="ab12") as index:
        assert (index.model, index.dim, index.dtype, str(index.limit)) == (
            "tiny",
            4,
            "float16",
            "2x4",
        )
        assert index.verify() == []
        # a: 0.75 (its first vector) + 0.75 / 2 (its last); b: 1 + 0.5; c: 0.5 + 0.5 / 2.
        assert [[tuple(hit) for hit in some] for some in index.search(QUERY)] == [
            [
                ("b", 1.5, {"source": "docs/b.pdf", "page": 2}),
                ("a", 1.125, {"source": "docs/a.pdf", "page": 3}),
                ("c", 0.75, {"source": "web/c.html", "tag": None}),
            ]
        ]
        assert pairs(index.search(QUERY, "1x1")) == [[("a", 0.75), ("c", 0.5), ("b", 0.0)]]
        assert index.ids() == ["b", "c", "a"]
        assert index.stats()[:3] == (3, 2, 3)
        index.add(["new"], grid(1, 4, 4))
        index.compact()
        assert index.ids() == ["b", "c", "a", "new"]


def test_format_version_2_opens_for_ever(tmp_path):
    shutil.copytree(FORMAT_2, tmp_path / "idx")
    with Index.open(tmp_path / "idx", fingerprint="ab12") as index:
        assert (index.model, index.dim, index.dtype, index.sketch) == ("tiny", 3, "int8", "int4")
        assert index.verify() == []
        assert index.stats()[:3] == (3, 1, 2)
        queries = np.array([[[127, 0, 0], [0, 0, 127]]], np.float32)
        # All vectors have a 127 in them, so that they are stored exactly.
        # c: 127 * 127 twice; a: 127 * 127, and 0 with (127, 1, 0); d: 0, and 127 with (0, 127, 1).
        assert [[tuple(hit) for hit in some] for some in index.search(queries)] == [
            [
                ("c", 32258.0, {"source": "web/c.html", "tag": None}),
                ("a", 16129.0, {"source": "docs/a.pdf", "page": 3}),
                ("d", 127.0, {"source": "docs/d.pdf", "page": 4}),
            ]
        ]
        first = [[("a", 16129.0), ("c", 8128.0), ("d", 0.0)]]
        assert pairs(index.search(queries, "1x1")) == first
        assert pairs(index.search(queries, filter={"page": {"gt": 3}})) == [[("d", 127.0)]]
        assert index.embeddings(["c"])[0].tolist() == [[64, 0, 127], *[[127, 0, 0]] * 3]
        index.add(["new"], grid(1, 4, 3))
        index.compact()
        assert index.ids() == ["c", "d", "a", "new"]
        assert index.verify() == []


def test_the_files_are_what_the_format_says(path):
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest == {
        "format": "metaembed-index",
        "format_version": 2,
        "dim": 4,
        "groups": ["1x1", "2x4"],
        "dtype": "float16",
        "sketch": None,
        "model": "tiny",
        "fingerprint": "ab12",
        "planes": [[0, 1], [1, 4]],
    }
    first = np.load(path / "segments" / "1" / "plane-0-1.npy", allow_pickle=False)
    rest = np.load(path / "segments" / "1" / "plane-1-4.npy", allow_pickle=False)
    assert (first.dtype, first.shape, rest.shape) == (np.float16, (6, 1, 4), (6, 3, 4))
    assert np.array_equal(np.concatenate([first, rest], axis=1), grid(6, 4, 4))
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert names == [
        "catalog.sqlite",
        "lock",
        "manifest.json",
        "segments/1/plane-0-1.npy",
        "segments/1/plane-1-4.npy",
    ]


def test_the_catalog_is_what_the_format_says(path):
    with Index.open(path) as index:
        index.upsert(["1", "6"], grid(2, 4, 4))
        index.delete(["4"])
        segments, tables = "SELECT * FROM segments", "SELECT name FROM sqlite_master ORDER BY name"
        assert query(path, "PRAGMA user_version") == [(2,)]
        assert [name for (name,) in query(path, tables) if not name.startswith("sqlite_")] == [
            "deleted",
            "files",
            "items",
            "segments",
        ]
        assert query(path, segments) == [(1, 6, 1, None), (2, 2, 7, None)]
        assert query(path, "SELECT * FROM deleted") == [(2,), (5,)]
        items = [(1, "0"), (3, "2"), (4, "3"), (6, "5"), (7, "1"), (8, "6")]
        assert query(path, "SELECT sequence, id FROM items ORDER BY sequence") == items
        for segment, name, size, crc32 in query(path, "SELECT * FROM files"):
            content = (path / "segments" / str(segment) / name).read_bytes()
            assert (len(content), zlib.crc32(content)) == (size, crc32)
        index.compact()
        blob = np.array([1, 3, 4, 6, 7, 8], "<i8").tobytes()
        assert query(path, segments) == [(3, 6, 1, blob)]
        assert query(path, "SELECT * FROM deleted") == []
        assert query(path, "SELECT sequence, id FROM items ORDER BY sequence") == items
        assert {name for (name,) in query(path, "SELECT name FROM files")} == {
            "plane-0-1.npy",
            "plane-1-4.npy",
        }
        index.delete(["0", "6"])
        index.compact()
        blob = np.array([3, 4, 6, 7], "<i8").tobytes()
        assert query(path, segments) == [(4, 4, 3, blob)]
        index.delete(["2", "5", "1"])
        index.compact()  # one item is consecutive
        index.add(["7"], grid(1, 4, 4))
        assert query(path, segments) == [(5, 1, 4, None), (6, 1, 9, None)]


def statements(catalog):
    """Collect what a catalog asks SQLite from now on."""
    asked = []
    catalog.database.require_open().set_trace_callback(asked.append)
    return asked


def test_a_new_state_is_read_without_reading_the_items(path):
    with Index.open(path) as writer, Index.open(path) as reader:
        writer.add(["7", "8"], grid(2, 4, 4))
        writer.delete(["2"])
        writer.compact()  # whose sequences are listed
        first = reader._store.snapshot()
        writer.add(["9"], grid(1, 4, 4))
        asked = statements(reader._store.catalog)
        second = reader._store.snapshot()
    # The last one looks at the ends of the index of sequences.
    assert [line for line in asked if "items" in line] == [
        "SELECT (SELECT min(sequence) FROM items), (SELECT max(sequence) FROM items)"
    ]
    assert not any("SELECT sequences" in line for line in asked)
    assert second.entries[0] is first.entries[0]
    assert [len(snapshot) for snapshot in (first, second)] == [7, 8]


def test_compaction_leaves_the_items_alone(path, monkeypatch):
    asked, opened = [], catalog.Catalog.__init__

    def traced(self, *arguments):
        opened(self, *arguments)
        asked.append(statements(self))

    with Index.open(path) as index:
        index.delete(["2"])
        monkeypatch.setattr(catalog.Catalog, "__init__", traced)
        index.compact()
    (lines,) = asked
    assert any("INSERT INTO segments" in line for line in lines)
    assert not any("items" in line.split("WHERE")[0] for line in lines)


def test_planes_lie_between_the_candidate_sizes_of_the_groups(tmp_path):
    groups = ["1x1", "2x4", "4x4", "4x8", "8x16", "16x64"]
    Index.create(tmp_path / "idx", dim=1, groups=groups).close()
    planes = json.loads((tmp_path / "idx" / "manifest.json").read_text())["planes"]
    assert planes == [[0, 1], [1, 4], [4, 8], [8, 16], [16, 64]]


def test_a_small_budget_touches_only_its_planes(path):
    with Index.open(path) as index:
        (path / "segments" / "1" / "plane-1-4.npy").unlink()
        assert len(index.search(QUERY, "2x1", k=99)[0]) == 6
        with pytest.raises(IndexFormatError, match=r"damaged: 1/plane-1-4\.npy is missing"):
            index.search(QUERY, "2x2")


def change_manifest(**changes):
    def damage(path):
        fields = json.loads((path / "manifest.json").read_text()) | changes
        (path / "manifest.json").write_text(json.dumps(fields))

    return damage


def write(name, content):
    return lambda path: (path / name).write_bytes(content)


def remove(name):
    def damage(path):
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def cut(name, size):
    return lambda path: os.truncate(path / name, size)


def run(*statements):
    return lambda path: sql(path, *statements)


def sequences(*numbers):
    content = np.array(numbers, "<i8").tobytes().hex()
    return run(f"UPDATE segments SET sequences = x'{content}'")


def overlap(path):
    shutil.copytree(path / "segments" / "1", path / "segments" / "2")
    sql(
        path,
        "INSERT INTO segments VALUES (2, 6, 6, NULL)",
        "INSERT INTO files SELECT 2, name, num_bytes, crc32 FROM files",
    )


def save(name, array):
    """Replace a plane, and make the catalog agree with its size."""

    def damage(path):
        file = path / "segments" / "1" / name
        np.save(file, array, allow_pickle=True)
        sql(path, f"UPDATE files SET num_bytes = {file.stat().st_size} WHERE name = '{name}'")

    return damage


PLANE = "segments/1/plane-1-4.npy"

DAMAGE = {
    "no folder": (lambda path: shutil.rmtree(path), "is not an index: it has no manifest.json"),
    "no manifest": (remove("manifest.json"), "is not an index: it has no manifest.json"),
    "manifest is not JSON": (write("manifest.json", b"{"), "manifest.json is not valid"),
    "manifest is not text": (write("manifest.json", b"\xff\xfe"), "manifest.json is not valid"),
    "manifest is a folder": (
        lambda path: ((path / "manifest.json").unlink(), (path / "manifest.json").mkdir()),
        "manifest.json is not a file",
    ),
    "manifest is a list": (write("manifest.json", b"[]"), "format is not 'metaembed-index'"),
    "manifest nests": (write("manifest.json", b"[" * 10**5), "manifest.json is not valid"),
    "manifest of another": (change_manifest(format="faiss"), "format is not 'metaembed-index'"),
    "newer format": (change_manifest(format_version=3), "version 3 .* up to 2. Upgrade metaembed"),
    "older than its type": (
        change_manifest(format_version=1, dtype="int8"),
        "version 1 has float16 or float32",
    ),
    "older than its sketch": (change_manifest(format_version=1, sketch="binary"), "no sketch"),
    "sketch of a type that none has": (change_manifest(sketch="int2"), r"not valid \(sketch: "),
    "sketch without files": (change_manifest(sketch="int8"), "other files than the manifest"),
    "scales without files": (change_manifest(dtype="int8"), "other files than the manifest"),
    "odd version": (change_manifest(format_version="1"), r"not valid \(format_version: "),
    "version 0": (change_manifest(format_version=0), r"not valid \(format_version: "),
    "negative dim": (change_manifest(dim=-4), r"not valid \(dim: "),
    "another dim": (change_manifest(dim=5), "cannot hold 6 rows"),
    "a much larger dim": (change_manifest(dim=4096), "cannot hold 6 rows"),
    "text for dim": (change_manifest(dim="4"), r"not valid \(dim: "),
    "another dtype": (change_manifest(dtype="float32"), "cannot hold 6 rows"),
    "unknown dtype": (change_manifest(dtype="object"), r"not valid \(dtype: "),
    "bad group": (change_manifest(groups=["1x1", "2*4"]), r"not valid \(groups.1: "),
    "no groups": (change_manifest(groups=[]), "At least one group"),
    "unknown field": (change_manifest(extra=1), r"not valid \(extra: "),
    "planes with a gap": (change_manifest(planes=[[0, 1], [2, 4]]), "do not divide 4 vectors"),
    "empty plane": (change_manifest(planes=[[0, 0], [0, 4]]), "do not divide 4 vectors"),
    "too few planes": (change_manifest(planes=[[0, 1]]), "do not divide 4 vectors"),
    "planes as paths": (change_manifest(planes=[["../0", 1], [1, 4]]), r"not valid \(planes"),
    "other planes": (change_manifest(planes=[[0, 4]]), "other files than the manifest"),
    "no segments": (remove("segments"), "folder 'segments' is missing"),
    "no catalog": (remove("catalog.sqlite"), "catalog.sqlite is missing"),
    "empty catalog": (write("catalog.sqlite", b""), "catalog has format version 0"),
    "catalog is not SQLite": (write("catalog.sqlite", b"hello" * 999), "file is not a database"),
    "cut catalog": (cut("catalog.sqlite", 5000), "catalog.sqlite cannot be read"),
    "newer catalog": (
        run("PRAGMA user_version = 3"),
        "catalog of format version 3 .* up to 2. Upgrade metaembed",
    ),
    "catalog that claims to be older": (run("PRAGMA user_version = 1"), "no such table: planes"),
    "no table": (run("DROP TABLE items"), "no such table: items"),
    "other columns": (run("ALTER TABLE segments RENAME num_rows TO x"), "no such column: num_rows"),
    "segment is a text": (run("UPDATE segments SET num_rows = 'six'"), "not a record of sizes"),
    "negative rows": (run("UPDATE segments SET num_rows = -6"), "not a record of sizes"),
    "no rows": (run("UPDATE segments SET num_rows = 0"), "segment 1 has 0 rows"),
    "too many rows": (run("UPDATE segments SET num_rows = 1 << 60"), "cannot hold"),
    "too few rows": (run("UPDATE segments SET num_rows = 5"), "cannot hold 5 rows"),
    "negative size": (run("UPDATE files SET num_bytes = -1"), "not a record of sizes"),
    "wrong size": (run("UPDATE files SET num_bytes = num_bytes + 64"), "bytes instead of"),
    "no file": (run("DELETE FROM files WHERE name = 'plane-1-4.npy'"), "other files than"),
    "a path as file": (
        run("UPDATE files SET name = '../1/plane-1-4.npy' WHERE name = 'plane-1-4.npy'"),
        "other files than the manifest",
    ),
    "file name is no text": (
        run("UPDATE files SET name = x'00' WHERE name = 'plane-1-4.npy'"),
        "a name is not a text",
    ),
    "no segment row": (run("DELETE FROM segments"), "first or last item has no row"),
    "no items": (run("DELETE FROM items"), "a row has no item"),
    "no last item": (run("DELETE FROM items WHERE id = '5'"), "a row has no item"),
    "first sequence is 0": (run("UPDATE segments SET first_sequence = 0"), "begins with item 0"),
    "first sequence is large": (
        run("UPDATE segments SET first_sequence = 1 << 62"),
        "begins with item 4611686018427387904",
    ),
    "first sequence is a text": (
        run("UPDATE segments SET first_sequence = 'x'"),
        "not a record of sizes",
    ),
    "first sequence is another": (run("UPDATE segments SET first_sequence = 2"), "has no row"),
    "sequences are cut": (run("UPDATE segments SET sequences = x'0100'"), "are not listed"),
    "sequences are a text": (run("UPDATE segments SET sequences = '[1]'"), "are not listed"),
    "sequences begin elsewhere": (sequences(2, 3, 4, 5, 6, 7), "are not in order"),
    "sequences descend": (sequences(1, 2, 4, 3, 5, 6), "are not in order"),
    "sequences repeat": (sequences(1, 2, 3, 3, 5, 6), "are not in order"),
    "sequences are large": (sequences(1, 2, 3, 4, 5, 1 << 62), "are not in order"),
    "sequences miss an item": (sequences(1, 2, 3, 4, 5, 7), "first or last item has no row"),
    "segments overlap": (overlap, "segment 2 begins before another ends"),
    "a deleted item of no segment": (run("INSERT INTO deleted VALUES (7)"), "deleted item lies in"),
    "a deleted item that is there": (run("INSERT INTO deleted VALUES (6)"), "has no row"),
    "metadata is not JSON": (run("UPDATE items SET metadata = '{'"), "not the metadata"),
    "metadata is a list": (run("UPDATE items SET metadata = '[]'"), "not the metadata"),
    "metadata is no text": (run("UPDATE items SET metadata = x'ff'"), "not the metadata"),
    "metadata is not UTF-8": (
        run("UPDATE items SET metadata = cast(x'ff' AS TEXT)"),
        "catalog.sqlite cannot be read",
    ),
    "id is no text": (run("UPDATE items SET id = x'00' WHERE id = '0'"), "an id is not a text"),
    "no plane file": (remove(PLANE), "1/plane-1-4.npy is missing"),
    "plane is a folder": (
        lambda path: ((path / PLANE).unlink(), (path / PLANE).mkdir()),
        "bytes instead of",
    ),
    "cut plane": (cut(PLANE, 200), "plane-1-4.npy has 200 bytes instead of"),
    "empty plane file": (cut(PLANE, 0), "has 0 bytes instead of"),
    "plane is not npy": (
        lambda path: (path / PLANE).write_bytes(b"x" * (path / PLANE).stat().st_size),
        "plane-1-4.npy cannot be read",
    ),
    "plane of pickles": (
        save("plane-0-1.npy", np.full((6, 1, 4), {}, dtype=object)),
        "cannot hold|cannot be read",
    ),
    "plane of another shape": (
        save("plane-0-1.npy", np.zeros((6, 4, 1), np.float16)),
        r"it holds float16 of shape \(6, 4, 1\)",
    ),
    "plane of another dtype": (
        save("plane-0-1.npy", np.zeros((6, 1, 4), np.int16)),
        "it holds int16",
    ),
    "plane in another order": (
        save("plane-1-4.npy", np.zeros((6, 3, 4), np.float16, order="F")),
        "its order is not C",
    ),
}


def open_and_use(path):
    with Index.open(path) as index:
        hits = index.search(QUERY, k=99)
        index.ids()
        return hits


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_reported_in_one_line_and_never_searched(path, damage, message):
    damage(path)
    with pytest.raises(IndexFormatError, match=message) as caught:
        open_and_use(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("position", range(0, 128, 5))
def test_a_plane_header_with_a_wrong_byte_gives_an_error_or_the_same_hits(path, position):
    expected = open_and_use(path)
    file = path / PLANE
    content = bytearray(file.read_bytes())
    content[position] ^= 0x15
    file.write_bytes(content)
    with contextlib.suppress(IndexFormatError):
        assert open_and_use(path) == expected
    with Index.open(path) as index:
        assert index.verify() == ["Index 'idx': 1/plane-1-4.npy differs from its checksum."]


def test_verify_finds_what_opening_does_not_look_at(path):
    content = bytearray((path / PLANE).read_bytes())
    content[-3] ^= 1
    (path / PLANE).write_bytes(content)
    sql(
        path,
        "UPDATE items SET sequence = 9 WHERE id = '1'",
        "UPDATE items SET metadata = '{' WHERE id = '4'",
    )
    with Index.open(path) as index:
        assert index.verify() == [
            "Index 'idx': an item has no row in any segment (catalog.sqlite).",
            "Index 'idx': a row that is not deleted has no item (catalog.sqlite).",
            "Index 'idx': the metadata of an item is not JSON (catalog.sqlite).",
            "Index 'idx': 1/plane-1-4.npy differs from its checksum.",
        ]


def test_compaction_refuses_to_copy_damaged_vectors(path):
    content = bytearray((path / PLANE).read_bytes())
    content[-3] ^= 1
    (path / PLANE).write_bytes(content)
    with Index.open(path) as index:
        index.delete(["0"])
        with pytest.raises(IndexFormatError, match="differs from its checksum"):
            index.compact()
        assert index.stats()[:3] == (5, 1, 1)


def test_an_add_that_dies_before_its_commit_leaves_nothing(path):
    crash = """
        import os, sys
        import numpy as np
        from metaembed.index import Index, store
        index = Index.open(sys.argv[1])
        store.Catalog.add_items = lambda *_: os._exit(9)
        index.add(["new"], np.ones((1, 4, 4)))
    """
    left_over = path / "segments" / "2"
    with Index.open(path) as reader:
        before = reader.search(QUERY)
        assert subprocess.run(**command(crash, path), check=False).returncode == 9
        assert left_over.is_dir()
        assert reader.search(QUERY) == before
    shutil.copytree(left_over, path / "segments" / "7")  # of an older crash
    (path / "segments" / "notes").mkdir()  # not ours to delete
    with Index.open(path) as index:
        assert index.search(QUERY) == before
        assert index.verify() == []
        index.delete([])  # any writer clears up
        assert {folder.name for folder in left_over.parent.iterdir()} == {"1", "notes"}
        index.add(["new"], grid(1, 4, 4))
        assert len(index) == 7
        assert index.verify() == []


def test_a_writer_that_dies_in_its_commit_is_rolled_back_by_the_next_reader(path):
    crash = """
        import os, sys
        from metaembed.index import Index, store
        index = Index.open(sys.argv[1])
        with index._store.writing() as catalog:
            # With so small a cache the changed pages reach the file before the commit.
            catalog.database.execute("PRAGMA cache_size = 1")
            catalog.database.execute("UPDATE items SET metadata = printf('%.*c', 90000, 'x')")
            os._exit(9)
    """
    assert subprocess.run(**command(crash, path), check=False).returncode == 9
    assert (path / "catalog.sqlite-journal").stat().st_size > 0
    with Index.open(path) as index:
        assert index.get(["5"]) == [{"n": 5}]
        assert index.verify() == []


def test_an_add_that_cannot_be_written_says_so_and_leaves_nothing(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Index.open(path) as index:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            IndexFormatError, match="'idx' cannot be written: No space left"
        ) as caught:
            index.add(["new"], grid(1, 4, 4))
        assert "\n" not in str(caught.value)
        assert len(index) == 6
    assert [folder.name for folder in (path / "segments").iterdir()] == ["1"]


def test_a_second_writer_is_refused_at_once(path):
    hold = """
        import sys
        from pathlib import Path
        from metaembed.index.disk import write_lock
        with write_lock(Path(sys.argv[1]) / "lock", of="idx"):
            print("held", flush=True)
            sys.stdin.read()
    """
    other = talk_to(hold, path)
    with Index.open(path) as index, other:
        assert other.stdout.readline() == "held\n"
        for write in (
            lambda: index.add(["x"], grid(1, 4, 4)),
            lambda: index.upsert(["x"], grid(1, 4, 4)),
            lambda: index.delete(["0"]),
            index.compact,
        ):
            with pytest.raises(IndexFormatError, match="being written by another process"):
                write()
        assert len(index.search(QUERY, k=99)[0]) == len(index) == 6  # reading goes on
        other.stdin.close()
        other.wait()
        index.add(["x"], grid(1, 4, 4))
        with (
            write_lock(path / "lock", of="idx"),
            pytest.raises(IndexFormatError, match="another process or thread"),
        ):
            index.delete(["x"])


def test_a_reader_in_another_process_sees_a_commit(path):
    search = """
        import sys
        import numpy as np
        from metaembed.index import Index
        with Index.open(sys.argv[1]) as index:
            for _ in sys.stdin:
                hits = index.search(np.ones((1, 2, 4)), k=99)[0]
                print(len(index), *sorted(hit.id for hit in hits), flush=True)
    """
    with talk_to(search, path) as reader, Index.open(path) as index:

        def seen():
            reader.stdin.write("now\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        assert seen() == ["6", *"012345"]
        index.delete(["0", "1"])
        assert seen() == ["4", *"2345"]
        index.compact()
        assert seen() == ["4", *"2345"]
        index.add(["6"], grid(1, 4, 4))
        assert seen() == ["5", *"23456"]
        reader.stdin.close()


def test_another_instance_sees_a_commit_and_rereads_nothing_without_one(path):
    with Index.open(path) as writer, Index.open(path) as reader:
        queries = grid(2, 2, 4, seed=3)
        assert reader.search(queries) == writer.search(queries)
        cached = reader._store.snapshot().entries
        assert reader._store.snapshot().entries is cached
        writer.upsert(["3"], grid(1, 4, 4, seed=8))
        assert reader.search(queries, filter={"not": {"n": 1}}) == writer.search(
            queries, filter={"not": {"n": 1}}
        )
        assert reader._store.snapshot().entries is not cached


def test_a_search_survives_a_compaction_in_its_middle(path, monkeypatch):
    """The snapshot names segment 1; by the time its planes are opened they are gone."""
    with Index.open(path) as writer, Index.open(path) as reader:
        writer.delete(["0"])
        queries = grid(1, 2, 4, seed=3)
        expected = writer.search(queries, k=99)
        candidates, compactions = reader._store.candidates, []

        def interrupted(*arguments, **options):
            if not compactions:
                compactions.append(writer.compact())
            return candidates(*arguments, **options)

        monkeypatch.setattr(reader._store, "candidates", interrupted)
        assert reader.search(queries, k=99) == expected
        assert compactions
        assert not (path / "segments" / "1").exists()


def test_a_search_that_is_always_overtaken_holds_the_others_at_last(path, monkeypatch):
    with Index.open(path) as writer, Index.open(path) as reader:
        items_of, commits = hits._items_of, []

        def overtaken(*arguments):
            if len(commits) < 4:
                commits.append(writer.upsert(writer.ids(), grid(6, 4, 4)))
            return items_of(*arguments)

        monkeypatch.setattr(hits, "_items_of", overtaken)
        assert len(reader.search(QUERY, k=99)[0]) == 6
        assert len(commits) == 4


def test_a_commit_within_a_tick_of_the_clock_is_seen_by_the_next_search(path, monkeypatch):
    with Index.open(path) as writer, Index.open(path) as reader:
        monkeypatch.setattr(reader._store, "_look", lambda: (0, 0, 0))  # as if nothing changed
        before = {hit.id for hit in reader.search(QUERY, k=99)[0]}
        writer.upsert(["new"], grid(1, 4, 4))
        writer.delete(["0"])
        assert {hit.id for hit in reader.search(QUERY, k=99)[0]} == (before | {"new"}) - {"0"}
        cheap = {"n": {"lt": 6}}
        reader.search(QUERY, filter=cheap)
        writer.delete(["1"])
        assert "1" not in {hit.id for hit in reader.search(QUERY, k=99, filter=cheap)[0]}


def test_threads_share_an_index_while_one_of_them_writes(path):
    stop, failures, searches = threading.Event(), [], []

    def search(index):
        try:
            while not stop.is_set():
                hits = index.search(QUERY, k=99, filter={"n": {"lt": 6}})[0]
                searches.append(len(hits))
                assert sorted(hit.id for hit in hits) == list("012345")
        except BaseException as error:
            failures.append(error)

    with Index.open(path) as index:
        threads = [threading.Thread(target=search, args=[index]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for seed in range(8):
            index.upsert(["2", "3"], grid(2, 4, 4, seed), [{"n": 2}, {"n": 3}])
            index.compact()
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert searches


def test_a_plane_that_the_system_does_not_give_is_not_called_damaged(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with Index.open(path) as index:
        monkeypatch.setattr(npy.np, "load", refuse)
        with pytest.raises(IndexFormatError, match="cannot be read: Permission denied"):
            index.search(QUERY)


def num_open_arrays():
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.readlink().suffix == ".npy" for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it counts the open files there")
def test_many_small_segments_hold_no_open_files(path):
    vectors = grid(6, 4, 4)
    with Index.open(path) as index:
        for n in range(6, 30):
            index.add([str(n)], vectors[n % 6 : n % 6 + 1])
        everything = {str(n): vectors[n % 6] for n in range(30)}
        assert pairs(index.search(QUERY, k=99)) == naive_search(everything, QUERY, "2x4", k=99)
        assert num_open_arrays() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it counts the open files there")
def test_large_segments_hold_their_files_open_until_they_are_gone(path, monkeypatch):
    monkeypatch.setattr(npy, "SMALL_BYTES", 0)
    with Index.open(path) as index:
        index.add(["6"], grid(1, 4, 4))
        hits = index.search(QUERY, k=99)
        assert num_open_arrays() == 4
        assert index.search(QUERY, k=99) == hits
        index.compact()
        assert index.search(QUERY, k=99) == hits
        assert num_open_arrays() <= 4
    del index
    gc.collect()
    assert num_open_arrays() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it counts the open files there")
def test_reading_embeddings_holds_few_files_open(path, monkeypatch):
    monkeypatch.setattr(npy, "SMALL_BYTES", 0)
    monkeypatch.setattr(segments, "max_open_files", lambda: 6)
    with Index.open(path) as index:
        index.add(["6"], grid(1, 4, 4))
        index.add(["7"], grid(1, 4, 4))
        held = index.embeddings(index.ids())
        assert num_open_arrays() == 3
        assert np.array_equal(index.embeddings(index.ids()), held)


def test_more_files_than_a_process_may_open_is_said_in_one_line(path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    with Index.open(path) as index:
        monkeypatch.setattr(npy.np, "load", refuse)
        with pytest.raises(IndexFormatError, match=r"Compact it, or raise the limit"):
            index.search(QUERY)


def test_compaction_copies_block_by_block(path, monkeypatch):
    monkeypatch.setattr(planes, "BLOCK_ELEMENTS", 5)
    with Index.open(path) as index:
        before = index.search(QUERY, k=99)
        index.upsert(["9"], grid(1, 4, 4))
        index.delete(["9"])
        index.compact()
        assert index.stats()[:3] == (6, 0, 1)
        assert index.search(QUERY, k=99) == before
        assert index.verify() == []


def test_odd_folder_names_open(tmp_path):
    path = tmp_path / "what? 100%25 #1 ü"
    make_index(path, groups=GROUPS).close()
    with Index.open(path) as index:
        index.delete(["0"])
        assert len(index) == 5


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_an_index_without_write_permission_can_be_read():
    read = """
        import mmap, os, sys
        from metaembed.errors import IndexFormatError
        from metaembed.index import Index
        if os.geteuid() == 0:
            os.setuid(65534)
        with Index.open(sys.argv[1]) as index:
            print(index.embeddings(index.ids()).shape, index.verify())
            try:
                index.delete(["0"])
            except IndexFormatError as error:
                print(error)
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "idx"
        with make_index(path, items=5) as index:
            index.add(["x"], grid(1, 4, 4), texts=["a whale"])
        for file in (*path.rglob("*"), path):
            file.chmod(0o555 if file.is_dir() else 0o444)
        path.parent.chmod(0o755)
        done = subprocess.run(**command(read, path), stdout=subprocess.PIPE, check=True)
        for file in (path, *path.rglob("*")):
            file.chmod(0o755)
    assert done.stdout.splitlines() == [
        "(6, 4, 4) []",
        "Index 'idx' cannot be written: Permission denied. "
        "Check the permissions and the free space.",
    ]
