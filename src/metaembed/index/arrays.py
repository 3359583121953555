"""The edge where a caller's arrays enter the index."""

from typing import Any

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexMismatchError

VectorsLike = Any
"""A NumPy array or a torch tensor of float16, bfloat16, float32 or float64. Not spelled out as a
union, since naming torch here would import it."""


def as_vectors(
    vectors: VectorsLike, *, dim: int, dtype: "np.dtype[Any]", side: str
) -> Float[np.ndarray, "N r dim"]:
    """Copy to a NumPy array of `dtype`; `IndexMismatchError` unless (N, r, dim) and finite.

    Finite means after the conversion: 70000.0 is refused where float16 is stored.
    """
    array = _as_numpy(vectors, side)
    if array.ndim != 3 or array.shape[2] != dim or array.shape[1] == 0:
        raise IndexMismatchError(
            f"{side.capitalize()} vectors have shape {array.shape}; "
            f"this index takes (items, vectors, {dim})."
        )
    with np.errstate(all="ignore"):  # what overflows is refused below
        converted = array.astype(dtype, order="C")
    if not np.isfinite(converted).all():
        raise IndexMismatchError(
            f"{side.capitalize()} vectors hold NaN, infinity or a number too large for "
            f"{dtype.name}. Normalise the vectors."
        )
    return converted


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
