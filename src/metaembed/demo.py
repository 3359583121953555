"""The demo: the documentation of this Python installation, searched at three budgets."""

import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from metaembed.budget import Budget
from metaembed.data.source import Entry
from metaembed.items import Item
from metaembed.library import Library, PageHit

BUDGETS = (Budget(1, 1), Budget(4, 8), Budget(16, 64))
SHOWN = 5
"""Questions whose hits are printed; all of them count."""
DEPTH = 10
"""Hits looked at for a question's reciprocal rank."""


class Question(NamedTuple):
    """A question and the module whose documentation answers it."""

    text: str
    answer: str


QUESTIONS = (
    Question("run an external program and capture what it prints", "subprocess"),
    Question("remember a function's results so that they are not computed twice", "functools"),
    Question("a folder for scratch files that deletes itself", "tempfile"),
    Question("how often does each element occur", "collections"),
    Question("wait for several coroutines at once", "asyncio"),
    Question("options and arguments on the command line", "argparse"),
    Question("turn an object into JSON text", "json"),
    Question("fingerprint of some bytes, like SHA-256", "hashlib"),
    Question("read rows of a comma separated file as dictionaries", "csv"),
    Question("copy a whole directory tree", "shutil"),
    Question("the n smallest items without sorting everything", "heapq"),
    Question("break a paragraph into lines of a given width", "textwrap"),
    Question("put a list into random order", "random"),
    Question("middle value of a sample", "statistics"),
    Question("add three days to a date", "datetime"),
    Question("start a new log file when the old one is too large", "logging"),
    Question("download the page behind a URL", "urllib"),
    Question("unpack all files of a compressed archive ending in .zip", "zipfile"),
    Question("replace every match of a regular expression", "re"),
    Question("run SQL on a database that is one file", "sqlite3"),
    Question("all files below a directory that match a pattern", "pathlib"),
    Question("run a function in a separate thread of control", "threading"),
    Question("every way to choose two elements of a list", "itertools"),
    Question("put a stand-in for an object in its place during a test", "unittest"),
)
"""Written by hand; all answers lie in packages that metaembed-mini's training never saw."""


class Answer(NamedTuple):
    """What came back for a question; `rank` is that of the first hit in the right module."""

    question: Question
    hits: list[PageHit]
    rank: int | None


class Summary(NamedTuple):
    """One budget over all questions; times are medians of one query."""

    budget: Budget
    answers: list[Answer]
    encode_ms: float
    score_ms: float

    @property
    def right_first(self) -> int:
        return sum(answer.rank == 1 for answer in self.answers)

    @property
    def mean_reciprocal_rank(self) -> float:
        return sum(1 / a.rank for a in self.answers if a.rank) / len(self.answers)


def write_documentation(folder: Path) -> None:
    """Write the standard library's docstrings as one Markdown file a package.

    Nothing of it is run to get at them. Does nothing when this Python wrote them before.
    """
    from metaembed.data.python_docs import standard_library_entries

    stamp = folder / ".written-by"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == sys.version:
        return
    packages: dict[str, list[Entry]] = defaultdict(list)
    for entry in standard_library_entries():
        if entry.doc.strip():
            packages[entry.package].append(entry)
    folder.mkdir(parents=True, exist_ok=True)
    for package, entries in packages.items():
        (folder / f"{package}.md").write_text(_markdown(package, entries), encoding="utf-8")
    stamp.write_text(sys.version, encoding="utf-8")


def _markdown(package: str, entries: list[Entry]) -> str:
    parts = [f"# {package}\n"]
    for entry in entries:
        # Methods stay with their class, so that a hit shows enough to be understood.
        mark = "####" if entry.kind == "method" else "##"
        heading = f"{mark} {entry.name}\n" if mark == "##" else f"\n{entry.name}:"
        signature = f"`{entry.signature}`\n" if entry.signature else ""
        parts.append(f"{heading}\n{signature}\n{entry.doc}\n")
    return "\n".join(parts)


def ask(library: Library, budget: Budget) -> Summary:
    """Ask every question at a budget."""
    answers, encode, score = [], [], []
    for question in QUESTIONS:
        results = library.search(Item(text=question.text), budget=budget, k=DEPTH)
        right = f"{question.answer}.md"
        ranks = (rank for rank, hit in enumerate(results.hits, start=1) if hit.source == right)
        answers.append(Answer(question, results.hits, next(ranks, None)))
        encode.append(results.encode_ms)
        score.append(results.score_ms)
    return Summary(budget, answers, _median(encode), _median(score))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
