"""What the paper claims, tried on generated scenes with models trained from scratch.

python benchmarks/claims/run.py                       everything; stops and goes on
python benchmarks/claims/run.py --only mmr --seeds 1  some of it

A run is one variant with one seed. Each that is finished lies in build/claims, and is not run
again. As many runs go on at a time as there are cores, on one thread each.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from provenance import ROOT, provenance
from variants import VARIANTS

RESULTS = ROOT / "benchmarks/results/claims.json"
STEPS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/claims")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], int(arguments.one[1]), arguments.steps, arguments.folder)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (variant, seed)
        for seed in range(arguments.seeds)
        for variant in arguments.only or VARIANTS
        if not file_of(arguments.folder, variant, seed, arguments.steps).exists()
    ]
    with ThreadPoolExecutor(arguments.workers) as pool:
        for done, (variant, seed) in enumerate(
            pool.map(lambda run: start(*run, arguments), wanted), start=1
        ):
            print(f"{done}/{len(wanted)} {variant} seed {seed}", flush=True)
            collect(arguments.folder, arguments.steps)


def start(variant: str, seed: int, arguments: argparse.Namespace) -> tuple[str, int]:
    command = [sys.executable, __file__, "--one", variant, str(seed)]
    command += ["--steps", str(arguments.steps), "--folder", str(arguments.folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{variant} with seed {seed} failed:\n{done.stderr[-2000:]}")
    return variant, seed


def run_one(name: str, seed: int, steps: int, folder: Path) -> None:
    import torch
    from experiment import run

    torch.set_num_threads(1)
    result = run(VARIANTS[name], seed=seed, steps=steps)
    file = file_of(folder, name, seed, steps)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"name": name, **result}))
    partial.replace(file)


def file_of(folder: Path, variant: str, seed: int, steps: int) -> Path:
    return folder / f"{variant}-{seed}-{steps}.json"


def collect(folder: Path, steps: int) -> None:
    """Write all runs of that many steps into one file."""
    runs: list[dict[str, Any]] = [
        json.loads(file.read_text()) for file in sorted(folder.glob(f"*-{steps}.json"))
    ]
    found = {"provenance": provenance(synthetic=True), "steps": steps, "runs": runs}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
