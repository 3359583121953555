"""What a measurement was made with, and the file that keeps both."""

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metaembed.kernels import kernel_name

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "metaembed",
    "numpy",
    "torch",
    "sentence-transformers",
    "maxsim-cpu",
    "qdrant-edge-py",
)


def provenance(*, synthetic: bool) -> dict[str, Any]:
    """Raises `CalledProcessError` outside a git checkout: a result without a commit is none."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "command": " ".join(["python", *map(_shown, sys.argv)]),
        "synthetic": synthetic,
        "kernel": kernel_name(),
        "versions": {"python": sys.version.split()[0], **_versions()},
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg()[0],
    }


def _rounded(value: Any) -> Any:
    """Five significant digits, so that files and their differences can be read."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.5g}")
    return value


def store(path: Path, name: str, result: dict[str, Any]) -> None:
    """Put the result of one case in place of its last, and leave the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    results["cases"][name] = _rounded(result)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _shown(argument: str) -> str:
    """Paths of the checkout as one types them there; of others the name alone."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _field(path: str, name: str) -> str:
    """The first value of a `name : value` file of /proc."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
