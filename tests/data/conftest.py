"""The cache of `datasets` in a folder of the session, and the published data sets in small."""

from pathlib import Path

import pytest

from tests.data.published import make_mmeb


@pytest.fixture(autouse=True, scope="session")
def quiet_cache(tmp_path_factory: pytest.TempPathFactory):
    datasets = pytest.importorskip("datasets", reason="install metaembed[train]")
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    datasets.disable_progress_bars()
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def mmeb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MMEB-train: its layout, its columns and rows of six of its sets."""
    return make_mmeb(tmp_path_factory.mktemp("hub") / "MMEB-train")
