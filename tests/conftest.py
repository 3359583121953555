"""Tiny models of real architectures with random weights; nothing is downloaded."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Qwen-VL's processor needs torchvision, whose published wheels need a CUDA build of torch. The
# tests put it on the path apart from the environment (see the Makefile) and define the two
# operators that it misses beside a CPU build; no test calls them.
VISION = Path(sys.prefix) / "torchvision-for-tests"
if VISION.is_dir():
    import torch

    sys.path.append(str(VISION))
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import pytest  # noqa: E402

from tests.backbones.checkpoints import CHECKPOINTS  # noqa: E402
from tests.tiny import make_bert, make_qwen  # noqa: E402


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bidirectional text encoder: BERT, 2 layers, 64 positions."""
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal vision-language decoder: Qwen2.5-VL, 2 layers."""
    pytest.importorskip("torchvision", reason="run `make test`, which installs torchvision apart")
    return make_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function from a family's name to the folder of its tiny checkpoint."""
    made = {}

    def make(name):
        if name != "bert":
            pytest.importorskip(
                "torchvision", reason="run `make test`, which installs torchvision apart"
            )
        if name not in made:
            made[name] = CHECKPOINTS[name].make(tmp_path_factory.mktemp(name))
        return made[name]

    return make
