"""Damage to the files of an index, chosen by a seed, from wrong bits to wrong tables."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np

VALUES = (
    *(None, True, 0, 1, -1, 2, 5, 6, 7, 1.5, "", "x", "1", "../../lock", "\ud800", "\0"),
    *(2**16, 2**31, 2**32 + 1, 2**53, 2**62, 2**63 - 1, -(2**63), 1e300, [], {}, [[0, 1]]),
)
"""For fields in JSON and, where SQLite can hold them, in tables."""

HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 1, 6), }",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (%d, 1, 6), }",
    "{'descr': '<f2', 'fortran_order': False, 'shape': (1, -%d, 6), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (%d, 1, 6), }",
    "{'descr': [('a', '<f4', (%d,))], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|V%d', 'fortran_order': False, 'shape': (9, 1, 6), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (%d, %d), }".replace("%d, %d", "%d, 9"),
    "[" * 40 + "%d",
    "-" * 60 + "%d",
    "%d" * 9,
)
"""Of `.npy` files."""

STATEMENTS = (
    "DELETE FROM {table} WHERE rowid = {row}",
    "DELETE FROM {table}",
    "DROP TABLE {table}",
    "ALTER TABLE {table} RENAME TO other",
    "PRAGMA user_version = {row}",
    "INSERT INTO {table} SELECT * FROM {table} WHERE false UNION ALL SELECT * FROM {table}",
    "INSERT INTO deleted VALUES ({row})",
    "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "UPDATE sqlite_sequence SET seq = 'x'",
    "DELETE FROM sqlite_sequence",
    "UPDATE files SET name = replace(name, 'plane', 'scale')",
    "UPDATE segments SET sequences = randomblob(8 * num_rows)",
    "UPDATE segments SET sequences = zeroblob(8 * num_rows - 1)",
    "UPDATE segments SET sequences = zeroblob(800000)",
    "UPDATE segments SET number = number + {row}",
    "UPDATE items SET sequence = sequence + 9223372036854775000",
    "UPDATE items SET metadata = cast(x'80ff' AS TEXT) WHERE rowid = {row}",
    "UPDATE items SET metadata = replace(hex(zeroblob(2000)), '0', '[')",
    "CREATE TRIGGER more AFTER INSERT ON items BEGIN DELETE FROM items; END",
    "CREATE TABLE texts (text)",
    "DELETE FROM texts_data WHERE id > 1",
    "UPDATE texts_data SET block = randomblob(length(block))",
    "DELETE FROM texts_docsize",
    "UPDATE texts_content SET c0 = x'80'",
    "PRAGMA journal_mode = WAL",
    "PRAGMA auto_vacuum = 1; VACUUM",
    "PRAGMA encoding = 'UTF-16'; VACUUM",
)


def damage(path, seed):
    """Change an index at random, and say how."""
    random = np.random.default_rng(seed)
    kind = random.choice([in_bytes, in_bytes, in_manifest, in_tables, in_header, in_names])
    for _ in range(9):
        done = kind(path, random)
        if done:
            return f"{kind.__name__}: {done}"
    return "nothing"


def in_bytes(path, random):
    """Wrong, missing or added bytes in one file, most often not far from its beginning."""
    file = _some_file(path, random)
    content = bytearray(file.read_bytes())
    size = len(content)
    place = int(random.choice([random.integers(size + 1), min(size, random.integers(128))]))
    length = int(2 ** random.uniform(0, 9))
    what = str(random.choice(["flip", "flip", "cut", "insert", "remove", "zero", "random"]))
    match what:
        case "flip" if place < size:
            content[place] ^= 1 << int(random.integers(8))
        case "cut":
            del content[place:]
        case "insert":
            content[place:place] = random.bytes(length)
        case "remove":
            del content[place : place + length]
        case "zero":
            content[place : place + length] = bytes(len(content[place : place + length]))
        case "random":
            content[place : place + length] = random.bytes(len(content[place : place + length]))
    if bytes(content) == file.read_bytes():
        return ""
    file.write_bytes(content)
    return f"{what} at {place} of {file.relative_to(path)}"


def in_manifest(path, random):
    """Another value, or none, in a field of the manifest."""
    file = path / "manifest.json"
    fields = json.loads(file.read_text())
    name = str(random.choice([*fields, "other"]))
    value = VALUES[random.integers(len(VALUES))]
    if isinstance(fields.get(name), list) and fields[name] and random.integers(2):
        fields[name][random.integers(len(fields[name]))] = value
    elif random.integers(4) == 0:
        fields.pop(name, None)
    else:
        fields[name] = value
    file.write_text(json.dumps(fields))
    return f"{name} {value!r}"


def in_tables(path, random):
    """A statement that the index would never run."""
    with closing(sqlite3.connect(path / "catalog.sqlite", isolation_level=None)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = sorted(name for (name,) in found if not name.startswith("sqlite_"))
        table, row = str(random.choice(tables)), int(random.integers(1, 9))
        parameters = ()
        if random.integers(2):
            columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
            column = str(random.choice([name for (name,) in columns]))
            values = [one for one in VALUES if not isinstance(one, list | dict)]
            parameters = (values[random.integers(len(values))],)
            statement = f'UPDATE {table} SET "{column}" = ?'
            statement += f" WHERE rowid = {row}" * int(random.integers(2))
        else:
            statement = STATEMENTS[random.integers(len(STATEMENTS))].format(table=table, row=row)
        try:
            for one in statement.split("; "):
                connection.execute(one, parameters)
        except (sqlite3.Error, UnicodeEncodeError):
            return ""
    return f"{statement} {parameters}"


def in_header(path, random):
    """An `.npy` file that says that it is something else, of the same size or not."""
    files = sorted(path.rglob("*.npy"))
    file = files[random.integers(len(files))]
    content = file.read_bytes()
    number = int(2 ** random.uniform(0, 66))
    header = HEADERS[random.integers(len(HEADERS))]
    text = header.replace("%d", str(number)).encode()
    length = int.from_bytes(content[8:10], "little")
    version = bytes([int(random.choice([1, 1, 1, 2, 3, 9])), 0])
    text = text[: length - 1].ljust(length - 1) + b"\n"
    file.write_bytes(content[:6] + version + content[8:10] + text + content[10 + length :])
    return f"{text.strip()[:60]} in {file.relative_to(path)}"


def in_names(path, random):
    """Files that are missing, exchanged, folders, links to elsewhere, or too many."""
    one, other = _some_file(path, random), _some_file(path, random)
    what = str(random.choice(["remove", "exchange", "folder", "link", "copy", "journal", "empty"]))
    match what:
        case "remove":
            one.unlink()
        case "exchange" if one != other:
            content = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case "folder":
            one.unlink()
            one.mkdir()
        case "link":
            one.unlink()
            one.symlink_to(random.choice(["/dev/null", "/nowhere", "/etc/passwd", one.name, "/"]))
        case "copy":
            folder = one.parent if one.parent.name.isdecimal() else path / "segments" / "1"
            target = path / "segments" / str(random.integers(2, 9))
            if folder.is_dir() and target != folder:
                shutil.copytree(folder, target, dirs_exist_ok=True)
        case "journal":
            other = path / f"catalog.sqlite{random.choice(['-journal', '-wal', '-shm'])}"
            other.write_bytes(JOURNAL * int(random.integers(2)) + random.bytes(1000))
        case "empty":
            one.write_bytes(b"")
    return f"{what} {one.relative_to(path)} {other.relative_to(path)}"


JOURNAL = bytes.fromhex("d9d505f920a163d7") + b"\0\0\0\1" * 4
"""How a journal begins that SQLite plays back."""


def _some_file(path, random):
    """Each kind of file as often as another."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "lock")
    kinds = sorted({file.name for file in files})
    kind = kinds[random.integers(len(kinds))]
    alike = [file for file in files if file.name == kind]
    return alike[random.integers(len(alike))]
