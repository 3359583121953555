"""Real passages and their embeddings: what this Python's packages document, read by mini.

python benchmarks/passages.py [--limit 100000] [--out build/bench/passages] [--from-end]

Takes the paragraphs of the docstrings and manuals of the standard library and the installed
packages, and the queries of the held-out known-item set. It goes on where it was stopped. Which
paragraphs there are depends on what is installed; `passages.json` says what was read. A second
process with `--from-end` halves the time where there are cores for it.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

SHARD = 2048
MIN_LENGTH, MAX_LENGTH = 60, 400
"""In characters. Shorter is hardly a passage; what is longer is cut at a word."""


def passages() -> Iterator[str]:
    """Yield distinct paragraphs, in the order of packages."""
    from metaembed.data.python_docs import installed_package_entries, standard_library_entries

    seen = set()
    for entry in itertools.chain(standard_library_entries(), installed_package_entries()):
        for paragraph in entry.doc.split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) > MAX_LENGTH:
                text = text[:MAX_LENGTH].rpartition(" ")[0]
            if len(text) >= MIN_LENGTH and text not in seen:
                seen.add(text)
                yield text


def write_corpus(out: Path, limit: int) -> list[str]:
    """Choose `limit` passages at random, once, and keep their texts."""
    path = out / "passages.json"
    if not path.exists():
        found = list(passages())
        random.Random(0).shuffle(found)
        path.write_text(json.dumps(found[:limit]), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, vectors: np.ndarray) -> None:
    """Put a complete file in place, or none."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, vectors)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("build/bench/passages"))
    parser.add_argument("--from-end", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    from metaembed.cli.options import keep_freed_memory
    from metaembed.data.pairs import held_out_pairs
    from metaembed.encode import encode_candidates
    from metaembed.models import load_model

    keep_freed_memory()
    texts = write_corpus(arguments.out, arguments.limit)
    model = load_model("metaembed-mini")
    queries = arguments.out / "queries.npy"
    if not queries.exists():
        asked = [pair.query for pair in held_out_pairs()]
        found = model.encode_query(asked, convert_to_tensor=True)
        save(queries, found.float().cpu().numpy())
    starts = range(0, len(texts), SHARD)
    for start in track(starts[:: -1 if arguments.from_end else 1], description="passages"):
        path = arguments.out / f"vectors-{start:07}.npy"
        if not path.exists():
            some = texts[start : start + SHARD]
            save(path, encode_candidates(model, some, batch_size=16).astype(np.float16))


if __name__ == "__main__":
    main()
