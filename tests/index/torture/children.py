"""Processes that are started often and die young: forked from one that has imported the index."""

import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "METAEMBED_THREADS": "1"}

# A child looks for no module while system calls fail, not even for the one that runs it.
PRELOADED = [
    "tests.index.torture.writer",
    "tests.index.torture.use",
    "multiprocessing.popen_forkserver",
]

ROOT = Path(__file__).parents[3]

SECONDS = 120
"""No child takes as long."""


@cache
def context():
    """Starts the process that all others are forked from; it has no threads."""
    from multiprocessing import forkserver

    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    forkserver.ensure_running()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    return made


def start(function, *arguments):
    child = context().Process(target=function, args=arguments, daemon=True)
    child.start()
    return child


def finish(child):
    """Wait for a child and return its exit code; negative: the signal that killed it."""
    child.join(SECONDS)
    code = child.exitcode
    child.kill()
    child.join()
    child.close()
    assert code is not None, "a process hangs"
    return code


def run(function, *arguments):
    return finish(start(function, *arguments))


def start_held(function, *arguments):
    """Start a child whose `ready` (its last argument) waits; returns the child and the pipe."""
    receive, send = context().Pipe(duplex=False)
    child = start(function, *arguments, receive)
    receive.close()
    return child, send


def run_for(seconds, function, *arguments):
    """Kill a child after some time, if it takes as long."""
    child, ready = start_held(function, *arguments)
    ready.send_bytes(b"go")
    ready.close()
    time.sleep(seconds)
    child.kill()
    return finish(child)


@cache
def has_strace():
    """Whether this system has strace and lets it attach to a process."""
    if shutil.which("strace") is None:
        return False
    child = start(time.sleep, 60)
    with tempfile.TemporaryDirectory() as folder:
        command = ["strace", "-o", f"{folder}/log", "-p", str(child.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            attached = "attached" in tracer.stderr.readline()
            child.kill()
    finish(child)
    return attached


def run_injected(injection, log, function, *arguments):
    """Run a child in which strace injects something at a system call (see `strace -e inject`)."""
    child, ready = start_held(function, *arguments)
    calls = injection.split(":")[0]
    command = ["strace", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={injection}"]
    with subprocess.Popen(
        [*command, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert "attached" in tracer.stderr.readline()
        ready.send_bytes(b"go")
        ready.close()
        return finish(child)
