"""Searches on a GPU, here without one: Triton interprets the kernel, and compiles it.

Both run in processes of their own, since Triton decides on its import which of the two it does.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaembed.errors import MetaEmbedError
from metaembed.kernels import Part, gpu
from metaembed.storage import encode

FOLDER = Path(__file__).parent

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(not gpu.available(), reason="there is no GPU that Triton runs on")


def run_tests(name, **environment):
    inherited = {key: os.environ[key] for key in os.environ if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pytest", "--noconftest", str(FOLDER / name)]
    result = subprocess.run(
        command, env=inherited | environment, cwd=FOLDER.parents[1], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@needs_triton
def test_searches_in_the_interpreter_obey_the_laws():
    run_tests("gpu_laws.py", TRITON_INTERPRET="1")


@needs_triton
@needs_gpu
def test_searches_on_this_gpu_obey_the_laws():
    run_tests("gpu_laws.py")


@needs_triton
def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path):
    run_tests("gpu_compilation.py", TRITON_CACHE_DIR=str(tmp_path))


def test_without_triton_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not gpu.available()
    part = Part((encode(np.ones((1, 1, 8), np.float32), "int8"),), None)
    with pytest.raises(MetaEmbedError, match=r"^Scoring on a GPU needs Triton.*pip install.*\.$"):
        gpu.top_k(np.ones((1, 1, 8), np.float32), [part], r_c=1, k=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@needs_triton
def test_without_a_gpu_one_line_says_so():
    assert not gpu.available()
    with pytest.raises(MetaEmbedError, match=r"^Scoring on a GPU needs a CUDA device.*\.$"):
        gpu.to_device([])


def test_importing_the_module_does_not_import_triton():
    code = "import sys, metaembed.kernels.gpu; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 60), st.integers(0, 60))
def test_equal_scores_are_kept_and_put_in_the_order_of_their_columns(seed, Q, n, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (Q, n)).astype(np.float32) * rng.choice([-0.0, 1.0])
    found, columns = gpu.first_best(torch.from_numpy(scores), min(k, n))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert columns.tolist() == expected.tolist()
    assert found.tolist() == np.take_along_axis(scores, expected, axis=1).tolist()
