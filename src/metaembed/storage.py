"""Storage types: how a float32 vector lies in memory and on disk, and what of it survives.

| type     | a number is kept as                       | beside each vector  | bytes, dim 128 |
|----------|-------------------------------------------|---------------------|----------------|
| float32  | itself                                    |                     | 512            |
| float16  | IEEE half                                 |                     | 256            |
| bfloat16 | the upper half of a float32 (uint16)      |                     | 256            |
| int8     | -127 to 127, plus 128 (uint8)             | a float32 scale     | 132            |
| int4     | -7 to 7, plus 8; two to a byte, low first | a float32 scale     | 68             |
| binary   | its sign; eight to a byte, lowest first   |                     | 16             |

A quantised vector is `code * scale`, where the scale takes its largest number to the largest code.
Binary keeps directions only (+1 or -1), so its scores order candidates and have no unit.

int8, int4 and binary planes are scored against queries that are themselves rounded to int8, with
exact integer dot products; bfloat16 against queries rounded to bfloat16.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

StorageType = Literal["float32", "float16", "bfloat16", "int8", "int4", "binary"]

STORAGE_TYPES: tuple[StorageType, ...] = (
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int4",
    "binary",
)

CODES: dict[StorageType, "np.dtype[Any]"] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("u1"),
    "int4": np.dtype("u1"),
    "binary": np.dtype("u1"),
}
"""Little-endian on every machine, so that files can be copied between them."""

LARGEST_CODE: dict[StorageType, int] = {"int8": 127, "int4": 7}

SCALE = np.dtype("<f4")


class Stored(NamedTuple):
    """Vectors (rows, width, dim) as they lie in memory."""

    dtype: StorageType
    dim: int
    codes: np.ndarray
    """(rows, width, `code_length`) of `CODES[dtype]`, C order."""
    scales: Float[np.ndarray, "rows width"] | None
    """float32, of int8 and int4 only."""


def has_scales(dtype: StorageType) -> bool:
    return dtype in LARGEST_CODE


def code_length(dtype: StorageType, dim: int) -> int:
    """How many elements of `CODES[dtype]` one vector takes."""
    match dtype:
        case "int4":
            return -(-dim // 2)
        case "binary":
            return -(-dim // 8)
    return dim


def num_bytes(dtype: StorageType, dim: int) -> int:
    """Bytes of one vector, its scale included."""
    scale = SCALE.itemsize if has_scales(dtype) else 0
    return code_length(dtype, dim) * CODES[dtype].itemsize + scale


def encode(vectors: Float[np.ndarray, "rows width dim"], dtype: StorageType) -> Stored:
    """Round float32 vectors to a storage type, each number to the nearest it has, ties to even.

    float16 gives infinity for what is too large for it; see that it is not.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    dim = vectors.shape[-1]
    scales = None
    match dtype:
        case "int8" | "int4":
            codes, scales = _quantised(vectors, LARGEST_CODE[dtype])
            codes = (codes + np.float32(LARGEST_CODE[dtype] + 1)).astype(np.uint8)
            codes = codes if dtype == "int8" else _nibbles(codes)
        case "binary":
            codes = np.packbits(vectors >= 0, axis=-1, bitorder="little")
        case "bfloat16":
            codes = _bfloat16(vectors)
        case _:
            with np.errstate(over="ignore"):
                codes = vectors.astype(CODES[dtype])
    return Stored(dtype, dim, codes, scales)


def decode(stored: Stored) -> Float[np.ndarray, "rows width dim"]:
    """The vectors in float32, exactly what the codes stand for."""
    dtype, dim, codes, scales = stored
    match dtype:
        case "bfloat16":
            return (codes.astype(np.uint32) << 16).view(np.float32)
        case "binary":
            bits = np.unpackbits(codes, axis=-1, count=dim, bitorder="little")
            return bits.astype(np.float32) * 2 - 1
        case "int8":
            numbers = codes.astype(np.float32) - 128
        case "int4":
            both = np.stack([codes & 15, codes >> 4], axis=-1)
            numbers = both.reshape(*codes.shape[:-1], 2 * codes.shape[-1])[..., :dim]
            numbers = numbers.astype(np.float32) - 8
        case _:
            return codes.astype(np.float32)
    assert scales is not None
    return numbers * scales[..., None]


def round_queries(
    queries: Float[np.ndarray, "Q r_q dim"], dtype: StorageType
) -> Float[np.ndarray, "Q r_q dim"]:
    """The queries as they are scored against candidates of a storage type."""
    if dtype in ("int8", "int4", "binary"):
        return decode(encode(queries, "int8"))
    if dtype == "bfloat16":
        return decode(encode(queries, "bfloat16"))
    return np.asarray(queries, dtype=np.float32)


def _quantised(vectors: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from -largest to largest as float32, and the scale of each vector."""
    peaks = np.abs(vectors).max(axis=-1, initial=0)
    scales = (peaks / np.float32(largest)).astype(SCALE)
    # A vector of denormals can have the scale 0; it is stored as zeros.
    divisors = np.where(scales > 0, scales, np.float32(1))
    codes = np.where(scales[..., None] > 0, np.rint(vectors / divisors[..., None]), 0)
    return np.clip(codes, -largest, largest), scales


def _nibbles(codes: np.ndarray) -> np.ndarray:
    if codes.shape[-1] % 2:
        filler = np.full((*codes.shape[:-1], 1), 8, np.uint8)
        codes = np.concatenate([codes, filler], axis=-1)
    return codes[..., ::2] | codes[..., 1::2] << 4


def _bfloat16(vectors: np.ndarray) -> np.ndarray:
    """The upper halves, rounded to even. Finite numbers near float32's largest become infinite."""
    bits = vectors.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
