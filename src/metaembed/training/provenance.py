"""What a trained model says about where it came from."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metaembed.model import MetaEmbed
from metaembed.training.recipe import Recipe

RECORD = "training.json"
PACKAGES = ("metaembed", "torch", "transformers", "sentence-transformers", "peft", "accelerate")


def record_of(recipe: Recipe, model: MetaEmbed, data: list[dict[str, Any]]) -> dict[str, Any]:
    """The base, the recipe, the data and the versions of a run."""
    return {
        "base": recipe.model.backbone,
        "base_fingerprint": model.base_fingerprint,
        "recipe": recipe.model_dump(mode="json"),
        "data": data,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
    }


def write_record(record: dict[str, Any], folder: Path) -> None:
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _commit() -> str | None:
    """Of the checkout that this code runs from; None when it is installed without one."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
