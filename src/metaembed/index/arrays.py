"""The edge where a caller's arrays enter the index."""

from typing import Any

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexMismatchError
from metaembed.storage import StorageType, decode, encode

VectorsLike = Any
"""A NumPy array or a torch tensor of float16, bfloat16, float32 or float64. Not spelled out as a
union, since naming torch here would import it."""

BLOCK_ELEMENTS = 2**22
"""Numbers that are looked at or converted at once: 16 MiB in float32, in about five temporaries."""


FITS_ALL = 6e4
"""No storage type is too narrow for it."""


def as_vectors(
    vectors: VectorsLike, *, dim: int, dtype: StorageType, side: str
) -> Float[np.ndarray, "N r dim"]:
    """A NumPy array of any float type, perhaps the caller's own.

    Raises `IndexMismatchError` unless (N, r, dim) and finite. Finite means as stored: 70000.0 is
    refused where float16 is stored.
    """
    array = _as_numpy(vectors, side)
    if array.ndim != 3 or array.shape[2] != dim or array.shape[1] == 0:
        raise IndexMismatchError(
            f"{side.capitalize()} vectors have shape {array.shape}; "
            f"this index takes (items, vectors, {dim})."
        )
    if not is_finite(array, dtype):
        raise IndexMismatchError(
            f"{side.capitalize()} vectors hold NaN, infinity or a number too large for "
            f"{dtype}. Normalise the vectors."
        )
    return array


def is_finite(array: np.ndarray, dtype: StorageType) -> bool:
    """Whether every number is finite as stored.

    Rounding keeps the order of numbers, so the largest of a block stands for all of it.
    """
    step = max(1, BLOCK_ELEMENTS // (array.shape[1] * array.shape[2]))
    with np.errstate(all="ignore"):
        for start in range(0, len(array), step):
            peak = np.abs(array[start : start + step]).max().astype(np.float32)
            if peak <= FITS_ALL:
                continue
            if not np.isfinite(peak) or not np.isfinite(
                decode(encode(peak[None, None, None], dtype))
            ):
                return False
    return True


def _as_numpy(vectors: VectorsLike, side: str) -> Any:
    array = vectors
    if not isinstance(vectors, np.ndarray):
        import torch

        if isinstance(vectors, torch.Tensor) and vectors.is_floating_point():
            # NumPy has no bfloat16; float32 holds every one exactly.
            wide = vectors.float() if vectors.dtype == torch.bfloat16 else vectors
            array = wide.detach().cpu().numpy()
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        kind = getattr(vectors, "dtype", type(vectors).__name__)
        raise IndexMismatchError(
            f"{side.capitalize()} vectors must be a NumPy array or a torch tensor of "
            f"float16, bfloat16, float32 or float64, not {kind}."
        )
    return array
