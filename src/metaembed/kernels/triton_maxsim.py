"""Late interaction over stored vectors as one Triton kernel; importing this imports Triton.

A program scores a tile of items against a tile of query vectors. It walks over the items' vectors,
computes their dot products on the tensor cores straight from the codes, and keeps the largest in
registers, so that codes are read once and the similarities are never written. The queries that it
reads are padded: their vectors to a power of two each, their numbers to whole tiles.

Items that are stored alike get the same score, whatever lies beside them: the order of every sum
depends on the tiles, and these on the storage type and the queries alone. cuBLAS promises no such
thing, which is why matrix products are computed here even where there is one vector an item.

The tiles were chosen by what the compiler says of registers and shared memory. None of this has
been timed on a GPU yet.
"""

# Triton has no types, and its kernels no Python ones.
# mypy: disable-error-code="import-untyped, import-not-found, untyped-decorator, no-untyped-def"

from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metaembed.kernels.device import DevicePlane
from metaembed.storage import StorageType, code_length, encode

MAX_QUERY_VECTORS = 64
"""Of one query in one call. More are scored in parts, whose scores add up."""

PIECES: dict[StorageType, int] = {
    "float32": 1,
    "float16": 2,
    "bfloat16": 1,
    "int8": 1,
    "int4": 2,
    "binary": 8,
}
"""Products with each tile of codes: two nibbles or eight bits each meet their own numbers of the
query, a half-precision code the upper and the lower half of one."""


class Prepared(NamedTuple):
    """Queries as the kernel multiplies them with one storage type, zero where padded."""

    codes: Shaped[Tensor, "pieces vectors padded_length"]
    scales: Float[Tensor, " vectors"]
    num_queries: int
    num_vectors: int
    group: int
    """Vectors from one query to the next, `num_vectors` padded to a power of two."""


def prepare(
    queries: Float[np.ndarray, "Q r_q dim"], dtype: StorageType, device: torch.device
) -> Prepared:
    Q, r_q, dim = queries.shape
    group = triton.next_power_of_2(r_q)
    codes, scales = _query_codes(queries, dtype)  # (pieces, Q, r_q, length), (Q, r_q)
    padded = triton.cdiv(Q * group, _query_tile(Q * group)) * _query_tile(Q * group) // group
    added = ((0, padded - Q), (0, group - r_q))
    tile = _code_tile(dtype, code_length(dtype, dim))
    codes = np.pad(codes, ((0, 0), *added, (0, -codes.shape[-1] % tile)))
    tensor = torch.from_numpy(np.ascontiguousarray(codes).reshape(len(codes), padded * group, -1))
    if dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    flat = torch.from_numpy(np.pad(scales, added).reshape(-1))
    return Prepared(tensor.to(device), flat.to(device), Q, r_q, group)


def _query_codes(queries: np.ndarray, dtype: StorageType) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(queries.shape[:2], np.float32)
    match dtype:
        case "float32":
            return queries[None], ones
        case "bfloat16":
            return encode(queries, dtype).codes.view(np.int16)[None], ones
        case "float16":
            return _halves(queries)
    _, dim, codes, scales = encode(queries, "int8")
    assert scales is not None
    numbers = (codes ^ 128).view(np.int8)
    padding = code_length(dtype, dim) * PIECES[dtype] - dim
    numbers = np.pad(numbers, ((0, 0), (0, 0), (0, padding)))
    numbers = numbers.reshape(*scales.shape, -1, PIECES[dtype])  # (Q, r_q, length, pieces)
    return np.moveaxis(numbers, -1, 0), scales


def _halves(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each number as the sum of two half-precision ones, exact to 22 bits, times a power of two.

    The largest number of a vector comes to lie between 2^14 and 2^15, so that the lower halves of
    its small ones are in range too.
    """
    shifts = 15 - np.frexp(np.abs(queries).max(axis=-1, initial=0))[1]
    scaled = np.ldexp(queries, shifts[..., None])
    upper = scaled.astype(np.float16)
    lower = (scaled - upper).astype(np.float16)
    return np.stack([upper, lower]), np.ldexp(np.float32(1), -shifts)


def maxsim(
    queries: Prepared,
    plane: DevicePlane,
    *,
    rows: Int[Tensor, " n"] | None,
    maxima: Float[Tensor, "n vectors"] | None,
    last: bool,
) -> Float[Tensor, "..."]:
    """Score the items of a plane, giving (Q, n); before the last plane, give the maxima so far.

    `maxima` are those of the planes before; they are overwritten.
    """
    width, num_rows, length = plane.codes.shape
    items = num_rows if rows is None else len(rows)
    vectors = len(queries.scales)
    shape = (queries.num_queries, items) if last else (items, vectors)
    out = maxima if maxima is not None and not last else queries.scales.new_empty(shape)
    constants = kernel_constants(plane.dtype, length, vectors)
    programs = triton.cdiv(items, constants["ITEM_TILE"]) * (vectors // constants["QUERY_TILE"])
    maxsim_kernel[(programs,)](
        queries.codes,
        queries.scales,
        plane.codes,
        plane.scales,
        rows,
        maxima,
        out,
        items,
        queries.num_queries,
        queries.num_vectors,
        vectors,
        width,
        plane.codes.stride(0),
        0 if plane.scales is None else plane.scales.stride(0),
        GROUP=queries.group,
        LAST=last,
        **constants,
    )
    return out


def kernel_constants(dtype: StorageType, length: int, vectors: int) -> dict[str, Any]:
    """What the kernel is compiled for; `vectors` are those of all queries, padded."""
    query_tile = _query_tile(vectors)
    return {
        "DTYPE": dtype,
        "PIECES": PIECES[dtype],
        "LENGTH": length,
        "ITEM_TILE": 64 if query_tile > 32 or dtype in ("float32", "binary") else 128,
        "QUERY_TILE": query_tile,
        "CODE_TILE": _code_tile(dtype, length),
        # Triton's interpreter multiplies the bits of bfloat16 numbers as if they were integers.
        "WIDEN": dtype == "bfloat16" and not isinstance(maxsim_kernel, triton.JITFunction),
        "num_warps": 4,
        "num_stages": 3,
        # The sum of scaled maxima rounds alike in all variants of the kernel.
        "enable_fp_fusion": False,
    }


def _query_tile(vectors: int) -> int:
    return max(16, min(MAX_QUERY_VECTORS, triton.next_power_of_2(vectors)))


def _code_tile(dtype: StorageType, length: int) -> int:
    """Codes of a vector at a time: 128 where that is at most 256 bytes, at least what the tensor
    cores take of 8-bit numbers. A vector of one tile keeps the queries in place."""
    return max(32, min(32 if dtype == "float32" else 128, triton.next_power_of_2(length)))


@triton.jit
def maxsim_kernel(  # noqa: PLR0913
    query_codes,  # (PIECES, vectors, padded length)
    query_scales,  # (vectors)
    codes,  # (width, rows, LENGTH), a row contiguous
    scales,  # (width, rows), or None
    rows,  # (num_items), or None
    maxima,  # (num_items, vectors), or None
    out,  # (num_queries, num_items) if LAST, else as maxima
    num_items,
    num_queries,
    num_vectors,
    vectors,
    width,
    codes_stride,
    scales_stride,
    DTYPE: tl.constexpr,
    PIECES: tl.constexpr,
    LENGTH: tl.constexpr,
    GROUP: tl.constexpr,
    LAST: tl.constexpr,
    ITEM_TILE: tl.constexpr,
    QUERY_TILE: tl.constexpr,
    CODE_TILE: tl.constexpr,
    WIDEN: tl.constexpr,
):
    TILES: tl.constexpr = (LENGTH + CODE_TILE - 1) // CODE_TILE
    SUM: tl.constexpr = tl.int32 if query_codes.dtype.element_ty == tl.int8 else tl.float32
    # Programs that share items are neighbours, so that one reads what the other left in the cache.
    program, query_tiles = tl.program_id(0).to(tl.int64), vectors // QUERY_TILE
    vector = program % query_tiles * QUERY_TILE + tl.arange(0, QUERY_TILE)
    item = program // query_tiles * ITEM_TILE + tl.arange(0, ITEM_TILE)
    known = tl.minimum(item, num_items - 1)  # the last item once more rather than nothing
    row = known if rows is None else tl.load(rows + known)
    code = tl.arange(0, CODE_TILE)

    query_tile = query_codes + vector[None, :] * (TILES * CODE_TILE) + code[:, None]
    piece_stride = vectors.to(tl.int64) * (TILES * CODE_TILE)
    code_tile = codes + row[:, None] * LENGTH + code[None, :]
    best = tl.full((ITEM_TILE, QUERY_TILE), float("-inf"), tl.float32)
    for _ in range(width):
        dots = tl.zeros((ITEM_TILE, QUERY_TILE), SUM)
        for tile in range(TILES):
            start = tile * CODE_TILE
            if LENGTH % CODE_TILE == 0:
                packed = tl.load(code_tile + start)
            else:
                packed = tl.load(code_tile + start, mask=(start + code < LENGTH)[None, :], other=0)
            for piece in tl.static_range(PIECES):
                numbers = _unpacked(packed, piece, DTYPE)
                query = tl.load(query_tile + piece * piece_stride + start)
                if WIDEN:
                    numbers, query = numbers.to(tl.float32), query.to(tl.float32)
                dots = tl.dot(numbers, query, dots, input_precision="ieee", out_dtype=SUM)
        similarities = dots.to(tl.float32)
        if scales is not None:
            similarities *= tl.load(scales + row)[:, None]
            scales += scales_stride
        best = tl.maximum(best, similarities, propagate_nan=tl.PropagateNan.ALL)
        code_tile += codes_stride

    best *= tl.load(query_scales + vector)[None, :]
    seen = item[:, None] * vectors + vector[None, :]
    inside = (item < num_items)[:, None]
    if maxima is not None:
        before = tl.load(maxima + seen, mask=inside, other=0)
        best = tl.maximum(best, before, propagate_nan=tl.PropagateNan.ALL)
    if LAST:
        best = tl.where((vector % GROUP < num_vectors)[None, :], best, 0)
        GROUPS: tl.constexpr = QUERY_TILE // GROUP
        sums = tl.sum(tl.reshape(best, (ITEM_TILE, GROUPS, GROUP)), axis=2)
        query = program % query_tiles * GROUPS + tl.arange(0, GROUPS)
        place = query[None, :] * num_items + item[:, None]
        tl.store(out + place, sums, mask=inside & (query < num_queries)[None, :])
    else:
        tl.store(out + seen, best, mask=inside)


@triton.jit
def _unpacked(packed, PIECE: tl.constexpr, DTYPE: tl.constexpr):
    if DTYPE == "int8":
        return (packed ^ 128).to(tl.int8, bitcast=True)
    elif DTYPE == "int4":  # noqa: RET505
        return (packed >> (4 * PIECE) & 15).to(tl.int8) - 8
    elif DTYPE == "binary":
        return (packed >> PIECE & 1).to(tl.int8) * 2 - 1
    else:
        return packed
