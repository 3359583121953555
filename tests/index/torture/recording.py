"""What a process asks of the file system, one system call after the other, as strace sees it."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import metaembed.index
from tests.index.torture import children

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,sendfile,copy_file_range,"
    "fsync,fdatasync,sync_file_range,ftruncate,truncate,fallocate,rename,renameat,renameat2,link,"
    "linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,read,mmap"
)

LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+)(?:<.*>)?(?: .*)?")


class Call(NamedTuple):
    name: str
    arguments: tuple[str | bytes | int, ...]
    """A file descriptor or the folder of an `*at` call is an int; its name is left out."""
    result: int


def record(log, function, *arguments):
    """Run a function of `writer` under strace and return the calls that succeeded.

    They begin where the folder of `log` is first touched.
    """
    command = ["strace", "-o", str(log), "-xx", "-s", str(2**24), "-e", f"trace={CALLS}"]
    module = [sys.executable, "-m", "tests.index.torture.writer"]
    source = Path(metaembed.index.__file__).parents[2]
    environment = {"PYTHONPATH": f"{children.ROOT}{os.pathsep}{source}", "PATH": os.environ["PATH"]}
    subprocess.run(
        [*command, *module, json.dumps([function, *arguments], default=str)],
        env=environment | children.ENVIRONMENT,
        cwd=children.ROOT,
        check=True,
        timeout=children.SECONDS,
    )
    folder = bytes(Path(log).parent)
    return list(itertools.dropwhile(lambda call: not _names(call, folder), _parsed(log)))


def _names(call, folder):
    return any(isinstance(one, bytes) and one.startswith(folder) for one in call.arguments)


def _parsed(log):
    with Path(log).open() as lines:
        for line in lines:
            match = LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                assert line.startswith("+++ exited with 0"), line
                continue
            result = int(match[3], 0)
            if result >= 0:
                yield Call(match[1], tuple(map(_value, _split(match[2]))), result)


def _split(text):
    """Arguments; commas inside quotation marks are escaped by `-xx`, structures are not used."""
    return text.split(", ")


def _value(text):
    if text.startswith('"'):
        assert text.endswith('"'), "strace has cut a value"
        return bytes.fromhex(text[1:-1].replace("\\x", ""))
    return int(text) if re.fullmatch(r"-?\d+", text) else text
