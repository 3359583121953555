"""What this machine can do at most, measured: bytes read from memory and multiplications a second.

python benchmarks/machine.py

Reading is of a buffer far larger than the caches; multiplying is between registers, with the
machine's widest instruction for each type (`machine.cpp`, compiled for the occasion). Without a
compiler NumPy stands in, whose figures are lower limits; `method` says so.
"""

import ctypes
import json
import logging
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from rounds import seconds, spread

SOURCE = Path(__file__).parent / "machine.cpp"
BUFFER_BYTES = 2**29
"""Sixteen times the largest cache of the machines that this was written on."""
MULTIPLY_SECONDS = 0.01

SCORED_AS = {"int8": "int8", "int4": "int8", "bfloat16": "bfloat16"}
"""The multiplier that scores a storage type; the others are scored in float32."""

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The limits at one moment; a shared machine's change."""

    bandwidth: float
    """Bytes a second."""
    rates: dict[str, float]
    """Operations a second by type; a multiplication and its addition are two."""


class Meter(Protocol):
    method: str
    instructions: dict[str, str]

    def bandwidth(self, num_threads: int) -> float: ...

    def rate(self, dtype: str, num_threads: int) -> float: ...


class CompiledMeter:
    """Calls `machine.cpp`."""

    method = "machine.cpp"

    def __init__(self, compiler: str, buffer_bytes: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "machine.so"
            options = ["-O3", "-std=c++17", "-shared", "-fPIC", "-pthread"]
            subprocess.run([compiler, *options, str(SOURCE), "-o", str(library)], check=True)
            self._library = ctypes.CDLL(str(library))
        self._library.read_seconds.restype = ctypes.c_double
        self._library.multiply_rate.restype = ctypes.c_double
        self._library.multiplier_type.restype = ctypes.c_char_p
        self._library.multiplier_instruction.restype = ctypes.c_char_p
        self._buffer = np.ones(buffer_bytes, np.uint8)
        self._best: dict[str, int] = {}
        for which in range(self._library.num_multipliers()):
            if self._library.multiplier_usable(which):
                dtype = self._library.multiplier_type(which).decode()
                self._best.setdefault(dtype, which)
        self.instructions = {
            dtype: self._library.multiplier_instruction(which).decode()
            for dtype, which in self._best.items()
        }
        self._rounds = {dtype: self._calibrated(which) for dtype, which in self._best.items()}

    def bandwidth(self, num_threads: int) -> float:
        address = ctypes.c_void_p(self._buffer.ctypes.data)
        size = ctypes.c_size_t(self._buffer.nbytes)
        taken = min(
            self._library.read_seconds(address, size, num_threads, streams) for streams in (1, 4)
        )
        return float(self._buffer.nbytes / taken)

    def rate(self, dtype: str, num_threads: int) -> float:
        rounds = ctypes.c_long(self._rounds[dtype])
        return float(self._library.multiply_rate(self._best[dtype], rounds, num_threads))

    def _calibrated(self, which: int) -> int:
        """How many rounds take `MULTIPLY_SECONDS`."""
        trial = ctypes.c_long(100_000)
        taken = min(seconds(lambda: self._library.multiply_rate(which, trial, 1)) for _ in range(5))
        return max(1, int(trial.value * MULTIPLY_SECONDS / taken))


class NumpyMeter:
    """Adds up a buffer and multiplies matrices."""

    method = "numpy"
    instructions = {"float32": "matrix product"}  # noqa: RUF012

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer = np.ones(buffer_bytes // 8, np.uint64)
        self._matrix = np.ones((1024, 1024), np.float32)

    def bandwidth(self, num_threads: int) -> float:
        parts = np.array_split(self._buffer, num_threads)
        with ThreadPoolExecutor(num_threads) as pool:
            taken = seconds(lambda: list(pool.map(np.bitwise_xor.reduce, parts)))
        return self._buffer.nbytes / taken

    def rate(self, dtype: str, num_threads: int) -> float:
        del dtype, num_threads  # the BLAS has its own
        return 2 * 1024**3 / seconds(lambda: self._matrix @ self._matrix)


class Machine:
    """Measures the limits whenever asked, so that they belong to the same moments as a result."""

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.num_threads = len(os.sched_getaffinity(0))
        compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        self._meter: Meter = (
            CompiledMeter(compiler, buffer_bytes) if compiler else NumpyMeter(buffer_bytes)
        )

    def sample(self, num_threads: int | None = None) -> Sample:
        threads = num_threads or self.num_threads
        rates = {dtype: self._meter.rate(dtype, threads) for dtype in self._meter.instructions}
        return Sample(self._meter.bandwidth(threads), rates)

    def report(self, *, repeats: int = 9) -> dict[str, Any]:
        """Medians and spreads by number of threads, in GB/s and billions of operations a second."""
        by_threads = {}
        for threads in sorted({1, self.num_threads}):
            samples = [self.sample(threads) for _ in range(repeats)]
            by_threads[str(threads)] = summary(samples)
        return {
            "method": self._meter.method,
            "instructions": self._meter.instructions,
            "threads": by_threads,
        }


def summary(samples: list[Sample]) -> dict[str, Any]:
    """The spread of samples, in GB/s and billions of operations a second."""
    return {
        "gigabytes_per_second": spread([sample.bandwidth / 1e9 for sample in samples]),
        "giga_operations_per_second": {
            dtype: spread([sample.rates[dtype] / 1e9 for sample in samples])
            for dtype in samples[0].rates
        },
    }


class Work(NamedTuple):
    """What a search has to do at least."""

    dtype: str
    num_bytes: int
    """Of the candidates' vectors, each read once."""
    num_operations: int
    """A multiplication and its addition are two."""

    def seconds(self, sample: Sample) -> tuple[float, float]:
        """The least time for the bytes and for the operations; the larger is the limit."""
        kind = SCORED_AS.get(self.dtype, "float32")
        rate = sample.rates.get(kind, sample.rates["float32"])
        return self.num_bytes / sample.bandwidth, self.num_operations / rate


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info(json.dumps(Machine().report(), indent=2))


if __name__ == "__main__":
    main()
