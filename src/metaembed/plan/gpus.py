"""GPUs by name: memory, and dense bfloat16 operations a second, of their data sheets."""

from typing import NamedTuple

from metaembed.errors import RecipeError


class Gpu(NamedTuple):
    memory: float
    """Bytes."""
    rate: float
    """Dense bfloat16 operations a second, at most."""


GIB = 2**30
GPUS: dict[str, Gpu] = {
    "a100-40gb": Gpu(40 * GIB, 312e12),
    "a100-80gb": Gpu(80 * GIB, 312e12),
    "h100-80gb": Gpu(80 * GIB, 989e12),
    "h200-141gb": Gpu(141e9, 989e12),
    "b200-180gb": Gpu(180e9, 2250e12),
    "l40s-48gb": Gpu(48 * GIB, 362e12),
    "l4-24gb": Gpu(24 * GIB, 121e12),
    "rtx4090-24gb": Gpu(24 * GIB, 165e12),
}
"""NVIDIA's data sheets, without sparsity; H100 and B200 are the SXM/HGX ones. The RTX 4090's rate
is that of float16 products summed in float32."""


def gpu_named(name: str) -> Gpu:
    """Raises `RecipeError` for a name that is not known."""
    try:
        return GPUS[name.lower()]
    except KeyError:
        raise RecipeError(
            f"GPU {name!r} is not known; known are {', '.join(GPUS)}. "
            "Or give --gpu-memory and --tflops."
        ) from None
