"""The kernel compiles for GPUs that need not be there; `test_gpu.py` runs this file."""

import pytest
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from metaembed.kernels.triton_maxsim import kernel_constants, maxsim_kernel
from metaembed.storage import code_length

POINTERS = {
    "query_scales": "*fp32",
    "scales": "*fp32",
    "rows": "*i64",
    "maxima": "*fp32",
    "out": "*fp32",
}
CODES = {
    "float32": ("*fp32", "*fp32"),
    "float16": ("*fp16", "*fp16"),
    "bfloat16": ("*bf16", "*bf16"),
    "int8": ("*i8", "*u8"),
    "int4": ("*i8", "*u8"),
    "binary": ("*i8", "*u8"),
}
SHARED_MEMORY = {80: 99 * 2**10, 90: 227 * 2**10}
"""Bytes of a program. Compute capability 8.0 has more, 8.6, 8.9 and 12.0 have this."""


def compiled(dtype, capability, *, dim, last, absent):
    """The kernel for 16 queries of a vector, or 4 of 4; half precision has the largest tiles."""
    constants = kernel_constants(dtype, code_length(dtype, dim), 64 if dtype == "float16" else 16)
    options = {
        name: constants.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")
    }
    constants |= {"GROUP": 1 if dim > 1000 else 4, "LAST": last, **dict.fromkeys(absent)}
    if dtype == "float32":  # Triton compiles a variant for arguments that are 1
        constants |= dict.fromkeys(("num_items", "num_queries", "num_vectors", "width"), 1)
    names = maxsim_kernel.arg_names
    types = dict.fromkeys(names, "i32") | POINTERS | dict.fromkeys(constants, "constexpr")
    types["query_codes"], types["codes"] = CODES[dtype]
    aligned = {*POINTERS, "query_codes", "codes", "vectors", "codes_stride"} - set(absent)
    source = ASTSource(
        maxsim_kernel,
        {name: types[name] for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(
    ("dtype", "capability", "dim", "last", "absent", "instruction"),
    [
        ("float32", 80, 128, True, {"scales", "rows", "maxima"}, "fma.rn.f32"),
        ("float16", 80, 5120, True, {"scales", "rows", "maxima"}, "mma.sync"),
        ("bfloat16", 90, 128, True, {"scales", "maxima"}, "wgmma.mma_async"),
        ("int8", 90, 100, False, {"maxima"}, "wgmma.mma_async"),
        ("int4", 80, 100, True, {"rows"}, "mma.sync"),
        ("binary", 90, 128, True, {"scales", "rows", "maxima"}, "wgmma.mma_async"),
    ],
)
def test_every_storage_type_gets_the_instructions_made_for_it(
    dtype, capability, dim, last, absent, instruction
):
    kernel = compiled(dtype, capability, dim=dim, last=last, absent=absent)
    assert instruction in kernel.asm["ptx"]
    if dim % 16 == 0:
        assert "cp.async" in kernel.asm["ptx"]  # the next codes are on their way meanwhile
    assert kernel.metadata.shared <= SHARED_MEMORY[capability]
