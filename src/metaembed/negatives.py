"""Hard negatives for a training set, mined with a MetaEmbed model.

The candidates are the positives of the source. What the model ranks high for a query and that is
not a positive of it becomes a negative, unless it scores nearly as high as the positive: such are
often right answers that nobody labelled.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from metaembed.budget import Budget
from metaembed.data.examples import Picture, Side
from metaembed.data.formats.own import looks_like_a_picture
from metaembed.data.sources import Source
from metaembed.encode import encode_candidates
from metaembed.errors import ItemError, RecipeError
from metaembed.index import Hit, Index
from metaembed.items import Item
from metaembed.model import MetaEmbed

CHUNK = 256
"""Items that are encoded, and made durable, at a time."""
QUERIES = 64
"""Queries that are searched for, and whose rows are made durable, at a time."""

_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}

Progress = Callable[[int, int], None]


class Mining(NamedTuple):
    """How negatives are chosen."""

    budget: Budget | None = None
    """Vectors to rank with; None: all of the model's."""
    num_negatives: int = 4
    margin: float = 0.05
    """A negative scores at most `(1 - margin)` of what the positive scores."""
    depth: int = 100
    """Best candidates of a query among which negatives are looked for."""


class Mined(NamedTuple):
    """What came of it; `without` counts rows in which no candidate would do."""

    rows: int
    negatives: int
    without: int
    candidates: int


def mine_negatives(
    source: Source,
    model: MetaEmbed,
    out: Path,
    *,
    plan: Mining | None = None,
    batch_size: int = 32,
    progress: Progress = lambda *_: None,
) -> Mined:
    """Write the rows of a source with hard negatives to `out`, JSON lines of the format `jsonl`.

    Ranks exactly. What is done is kept in the folder `out` + `.work`, from which the same call
    goes on; pictures that a source holds itself are written to a folder beside `out`. Raises
    `RecipeError` when `out` is there already or the work is that of other settings.
    """
    plan = plan or Mining()
    budget = plan.budget or model.limit
    budget.require_fits(model.limit, of="the model")
    work = _work_folder(out, _identity(source, model, plan, budget))
    pool = _Pool(source, work)
    total = len(pool.candidates) + len(source)
    with _index(work, model, budget) as index:
        for done in _add_candidates(index, source, model, pool, batch_size):
            progress(done, total)
        miner = _Miner(source, model, index, pool, plan, out)
        with (work / "rows.jsonl").open("r+b") as file:
            for done in miner.write(file, batch_size):
                progress(len(pool.candidates) + done, total)
    mined = _count(work / "rows.jsonl", candidates=len(pool.candidates))
    (work / "rows.jsonl").replace(out)
    shutil.rmtree(work)
    return mined


class _Pool:
    """The distinct positives of a source, and which of them belong to which query."""

    def __init__(self, source: Source, work: Path) -> None:
        queries, positives = _keys(source, work / "keys.npy")
        _, first, inverse = np.unique(positives, return_index=True, return_inverse=True)
        self.candidates: Int64[np.ndarray, " C"] = np.sort(first)
        """The first row of every distinct positive."""
        self.positive_of: Int64[np.ndarray, " N"] = first[inverse]
        """For every row the row that stands for its positive."""
        self._queries, self._positives = queries, positives
        self._right: dict[int, set[int]] = defaultdict(set)
        for query, positive in zip(queries.tolist(), self.positive_of.tolist(), strict=True):
            self._right[query].add(positive)

    def may_be_wrong(self, row: int, candidate: int) -> bool:
        """Tell whether a candidate is neither a positive of the row's query nor the query."""
        query = int(self._queries[row])
        return candidate not in self._right[query] and self._positives[candidate] != query


class _Miner:
    """Searches for queries and writes their rows."""

    def __init__(
        self,
        source: Source,
        model: MetaEmbed,
        index: Index,
        pool: _Pool,
        plan: Mining,
        out: Path,
    ) -> None:
        self._source, self._model, self._index = source, model, index
        self._pool, self._plan = pool, plan
        self._writer = _Writer(out)

    def write(self, file: Any, batch_size: int) -> Iterator[int]:
        """Append the rows that `file` lacks; yields how many it has."""
        done = _whole_lines(file)
        while done < len(self._source):
            rows = range(done, min(len(self._source), done + QUERIES))
            for line in self._lines(rows, batch_size):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            done = rows.stop
            yield done

    def _lines(self, rows: range, batch_size: int) -> Iterator[bytes]:
        items = [_item(self._source, row, "query") for row in rows]
        queries = self._model.encode_query(
            items, budget=self._index.limit, batch_size=batch_size, convert_to_tensor=True
        )
        vectors = queries.float().cpu().numpy()
        positives = [str(self._pool.positive_of[row]) for row in rows]
        scores = _own_scores(vectors, self._index.embeddings(positives))
        found = self._index.search(vectors, k=self._plan.depth)
        for row, score, hits in zip(rows, scores.tolist(), found, strict=True):
            wrong = [hit for hit in hits if self._pool.may_be_wrong(row, int(hit.id))]
            yield self._line(row, score, choose(wrong, self._plan, positive_score=score))

    def _line(self, row: int, score: float, chosen: list[Hit]) -> bytes:
        example, write = self._source[row], self._writer.side
        line = {
            "query": write(example.query),
            "positive": write(example.positive),
            "negatives": [write(self._source[int(hit.id)].positive) for hit in chosen],
            "positive_score": score,
            "negative_scores": [hit.score for hit in chosen],
        }
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"


class _Writer:
    """Writes sides as the format `jsonl` reads them from `out`."""

    def __init__(self, out: Path) -> None:
        self._folder = out.absolute().parent
        self._images = f"{out.stem}-images"

    def side(self, side: Side) -> str | dict[str, str]:
        if side.picture is None and side.instruction is None and side.text is not None:
            return {"text": side.text} if looks_like_a_picture(side.text) else side.text
        image = None if side.picture is None else self._path(side.picture)
        found = {"text": side.text, "image": image, "instruction": side.instruction}
        return {key: value for key, value in found.items() if value is not None}

    def _path(self, picture: Picture) -> str:
        if picture.content is None:
            assert picture.path is not None
            path = picture.path.absolute()
            return str(
                path.relative_to(self._folder) if path.is_relative_to(self._folder) else path
            )
        start = picture.content[:4]
        suffix = next((s for magic, s in _SUFFIXES.items() if start.startswith(magic)), ".img")
        name = f"{self._images}/{picture.digest().hex()}{suffix}"
        target = self._folder / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            partial = target.with_suffix(".partial")
            partial.write_bytes(picture.content)
            partial.replace(target)
        return name


def choose(hits: Sequence[Hit], plan: Mining, *, positive_score: float) -> list[Hit]:
    """The best hits that score clearly less than the positive."""
    highest = positive_score - plan.margin * abs(positive_score)
    return [hit for hit in hits if hit.score <= highest][: plan.num_negatives]


def _own_scores(
    queries: Float[np.ndarray, "Q r_q dim"], positives: Float[np.ndarray, "Q r_c dim"]
) -> Float[np.ndarray, " Q"]:
    """The score of each query with the candidate in its place."""
    best: Float[np.ndarray, " Q"] = np.matmul(queries, positives.transpose(0, 2, 1)).max(-1).sum(-1)
    return best


def _add_candidates(
    index: Index, source: Source, model: MetaEmbed, pool: _Pool, batch_size: int
) -> Iterator[int]:
    """Encode the candidates that the index lacks; yields how many it has."""
    done = len(index)
    while done < len(pool.candidates):
        rows = pool.candidates[done : done + CHUNK].tolist()
        items = [_item(source, row, "positive") for row in rows]
        vectors = encode_candidates(model, items, budget=index.limit, batch_size=batch_size)
        index.add([str(row) for row in rows], vectors)
        done += len(rows)
        yield done


def _item(source: Source, row: int, name: str) -> Item:
    example = source[row]
    side = example.query if name == "query" else example.positive
    try:
        return side.item()
    except ItemError as error:
        raise ItemError(f"{source.where(row)}: {name}: {error}") from None


def _identity(source: Source, model: MetaEmbed, plan: Mining, budget: Budget) -> dict[str, Any]:
    """What a run that goes on must have in common with the one that began."""
    return {
        **plan._asdict(),
        "budget": str(budget),
        "source": source.name,
        "rows": len(source),
        "fingerprint": model.fingerprint,
    }


def _work_folder(out: Path, identity: dict[str, Any]) -> Path:
    if out.exists():
        raise RecipeError(f"{str(out)!r} is there already; give another name, or delete it.")
    if not out.absolute().parent.is_dir():
        raise RecipeError(f"There is no folder {str(out.absolute().parent)!r} to write to.")
    work = out.with_name(f"{out.name}.work")
    file = work / "mining.json"
    text = json.dumps(identity, indent=2)
    if not file.is_file():
        work.mkdir(exist_ok=True)
        (work / "rows.jsonl").touch()
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise RecipeError(
            f"{str(work)!r} holds a run of other settings; repeat those, delete it, or give "
            "another --out."
        )
    return work


def _index(work: Path, model: MetaEmbed, budget: Budget) -> Index:
    folder = work / "index"
    if folder.exists():
        return Index.open(folder, fingerprint=model.fingerprint)
    smaller = [group for group in model.groups if group.fits(budget) and group != budget]
    dim = model.get_embedding_dimension()
    assert dim is not None
    return Index.create(folder, dim=dim, groups=[*smaller, budget], fingerprint=model.fingerprint)


def _keys(source: Source, file: Path) -> Int64[np.ndarray, "2 N"]:
    """The keys of all queries and positives, kept for a run that goes on."""
    if file.is_file():
        kept: Int64[np.ndarray, "2 N"] = np.load(file, allow_pickle=False)
        return kept
    keys = np.array([source[row].keys() for row in range(len(source))], dtype=np.int64)
    keys = keys.reshape(-1, 2).T
    partial = file.with_suffix(".partial.npy")
    np.save(partial, keys, allow_pickle=False)
    partial.replace(file)
    return keys


def _whole_lines(file: Any) -> int:
    """Cut off a line that was not written to its end; returns how many are left."""
    content_end, lines = 0, 0
    for line in file:
        if line.endswith(b"\n"):
            content_end += len(line)
            lines += 1
    file.seek(content_end)
    file.truncate()
    return lines


def _count(file: Path, *, candidates: int) -> Mined:
    with file.open("rb") as lines:
        counts = [len(json.loads(line)["negatives"]) for line in lines]
    return Mined(len(counts), sum(counts), counts.count(0), candidates)
