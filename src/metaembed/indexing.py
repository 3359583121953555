"""From a folder to an index: reads what changed, cuts it into passages, encodes and stores them."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metaembed.encode import encode_candidates
from metaembed.errors import IndexMismatchError, ItemError, PageError
from metaembed.items import Item
from metaembed.ledger import FileState, Ledger
from metaembed.library import Library
from metaembed.pages import OCR_HINT, Page, Reader, find_files, ocr_available, split_passages

if TYPE_CHECKING:
    from PIL import Image

PASSAGE_TOKENS = 256
"""Longest text passage that is encoded, where the model reads that much."""
OVERLAP_TOKENS = 32
"""Shared by neighbours, so that no sentence is only ever seen cut in two."""
CHUNK = 128
"""Passages encoded, stored and recorded together: the most that an interruption can cost."""
MAX_SOURCE = 900
"""Longest path of a file below its folder: ids carry it and are bounded."""
THUMBNAIL_SIDE = 320
"""Pixels."""


class Unit(NamedTuple):
    """One passage on its way into the index: what is encoded and what is remembered of it."""

    id: str
    source: str
    item: Item
    metadata: dict[str, Any]
    text: str
    digest: str


@dataclass
class Report:
    """What indexing did. `skipped` and `incomplete` say why, by source."""

    files: int = 0
    unchanged: int = 0
    removed: int = 0
    pages: int = 0
    encoded: int = 0
    kept: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, str] = field(default_factory=dict)


class Progress(NamedTuple):
    """How far a run is: bytes of the files that it has read, of all that it must read."""

    done: int
    total: int
    passages: int
    source: str


def index_folder(
    library: Library,
    folder: Path,
    *,
    thumbnails: bool = True,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Bring an index up to date with a folder.

    Only passages that are new or changed are encoded; those of deleted files are removed. A file
    that cannot be read is reported and skipped. An interruption costs at most `CHUNK` passages:
    the next run goes on from there.
    """
    started = time.perf_counter()
    with closing(Ledger(library.index.path)) as ledger, Reader() as reader:
        report = _Run(library, ledger, reader, thumbnails, progress).bring_up_to_date(folder)
    report.seconds = time.perf_counter() - started
    return report


class _Run:
    """One pass over a folder."""

    def __init__(
        self,
        library: Library,
        ledger: Ledger,
        reader: Reader,
        thumbnails: bool,
        progress: Callable[[Progress], None],
    ) -> None:
        self.library = library
        self.ledger = ledger
        self.reader = reader
        self.thumbnails = thumbnails
        self.progress = progress
        self.report = Report()
        self.waiting: list[Unit] = []
        self.ends: list[Callable[[], None]] = []  # what becomes true once `waiting` is stored
        self.done = self.total = 0

    def bring_up_to_date(self, folder: Path) -> Report:
        if parts := self.ledger.parts():
            raise IndexMismatchError(
                f"This index was merged from {', '.join(map(repr, parts))} and belongs to no "
                "folder. Bring those up to date and merge them again."
            )
        own = self.library.index.path.resolve()
        paths = {
            source_name(path.relative_to(folder)): path
            for path in find_files(folder)
            if not path.resolve().is_relative_to(own)  # an index inside of its folder
        }
        known = self.ledger.sources()
        if known and known.isdisjoint(paths):
            raise IndexMismatchError(
                f"None of the {len(known):,} files of this index is in {str(folder)!r}: it belongs "
                "to another folder, or that folder's disk is not mounted. Give another --out."
            )
        todo = {s: path for s, path in paths.items() if not self.ledger.is_current(s, path)}
        self.report.files = len(paths)
        self.report.unchanged = len(paths) - len(todo)
        self.total = sum(path.stat().st_size for path in todo.values())
        for source in sorted(known - paths.keys()):
            self.report.removed += 1
            self._drop(source, self.ledger.ids(source))
        for source, path in todo.items():
            self._tell(source)
            self._read(source, path)
        self._store()
        stats = self.library.index.stats()
        if stats.deleted > stats.items:  # most of what is on disk is read by nobody
            self.library.index.compact()
        self._tell("")
        return self.report

    def _tell(self, source: str) -> None:
        passages = self.report.encoded + self.report.kept
        self.progress(Progress(self.done, self.total, passages, source))

    def _read(self, source: str, path: Path) -> None:
        """Queue one file. What it no longer holds is dropped once the rest is stored."""
        seen: set[str] = set()
        pictures: dict[str, bytes] = {}
        state: FileState | None = None
        size = 0
        try:
            if len(source) > MAX_SOURCE:
                raise PageError(f"Its path is longer than {MAX_SOURCE} characters; shorten it.")
            state = FileState.of(path)  # before reading: a change meanwhile is seen next time
            size = state.size
            for unit in self._units(source, path, pictures):
                seen.add(unit.id)
                self._put(unit)
        except (PageError, ItemError) as error:
            self.report.skipped[source] = str(error)
        except OSError as error:
            self.report.skipped[source] = error.strerror or str(error)
        complete = source not in self.report.skipped and not (
            source in self.report.incomplete and not ocr_available()
        )
        self.done += size

        def end() -> None:
            self._drop(source, self.ledger.ids(source) - seen)
            self.ledger.put_thumbnails(source, pictures)
            if complete and state is not None:
                self.ledger.finish(source, state)

        self.ends.append(end)

    def _units(self, source: str, path: Path, pictures: dict[str, bytes]) -> Iterator[Unit]:
        sees = self.library.model.supports("image")
        unread: list[str] = []
        for page in self.reader.read_pages(path, images=sees or self.thumbnails, ocr=not sees):
            self.report.pages += 1
            group = page_id(source, page.place)
            if page.image is not None and self.thumbnails:
                pictures[group] = _thumbnail(page.image)
            if sees and page.image is not None:
                yield _unit(group, source, page, page.text, Item(image=page.image))
            elif page.text.strip():
                yield from self._text_units(group, source, page)
            else:
                unread.append(page.place)
        if unread and not ocr_available():
            self.report.incomplete[source] = f"no text in {_listed(unread)}; {OCR_HINT}"
        elif unread:
            self.report.incomplete[source] = f"no text found in {_listed(unread)}"

    def _text_units(self, group: str, source: str, page: Page) -> Iterator[Unit]:
        title = page.title if page.title and not page.text.startswith(page.title) else ""
        room = self._passage_tokens(title)
        passages = split_passages(
            page.text,
            token_offsets=self.library.model[0].token_offsets,
            max_tokens=room,
            overlap=min(OVERLAP_TOKENS, room // 4),
        )
        for number, passage in enumerate(passages, start=1):
            id = group if number == 1 else f"{group}&part={number}"
            text = f"{title}\n{passage.text}" if title else passage.text
            yield _unit(group, source, page, passage.text, Item(text=text), id=id)

    def _passage_tokens(self, title: str) -> int:
        backbone = self.library.model[0]
        room = min(PASSAGE_TOKENS, backbone.text_length)
        return max(room - len(backbone.token_offsets(title)) - 1, room // 2) if title else room

    def _put(self, unit: Unit) -> None:
        if self.ledger.digest(unit.id) == unit.digest:
            self.report.kept += 1
            return
        self.waiting.append(unit)
        if len(self.waiting) == CHUNK:
            self._store()
            self._tell(unit.source)

    def _store(self) -> None:
        """Encode what waits, put it into the index, then record it."""
        units, self.waiting = self.waiting, []
        ends, self.ends = self.ends, []
        if units:
            vectors = encode_candidates(self.library.model, [unit.item for unit in units])
            vectors = vectors[:, : self.library.index.num_vectors]  # a shrunk index has fewer
            ids = [unit.id for unit in units]
            metadata, texts = [unit.metadata for unit in units], [unit.text for unit in units]
            self.library.index.upsert(ids, vectors, metadata, texts)
            self.ledger.record([(unit.id, unit.source, unit.digest) for unit in units])
            self.report.encoded += len(units)
        for end in ends:
            end()

    def _drop(self, source: str, ids: set[str]) -> None:
        self.ledger.forget(source, ids)
        if ids:
            self.library.index.delete(sorted(ids))


def source_name(path: Path) -> str:
    """A file's path with `/`; bytes that are no UTF-8 become `?`, as ids must be text.

    >>> source_name(Path("a") / "b.pdf")
    'a/b.pdf'
    """
    return path.as_posix().encode("utf-8", "replace").decode("utf-8")


def page_id(source: str, place: str) -> str:
    """Name a place of a file.

    >>> page_id("a/b.pdf", "page 3"), page_id("cat.png", "image"), page_id("a.html", "#top")
    ('a/b.pdf#page=3', 'cat.png', 'a.html#top')
    """
    if place == "image":
        return source
    anchor = place.removeprefix("#")
    return f"{source}#{anchor if place != anchor else place.replace(' ', '=', 1)}"


def _unit(
    group: str, source: str, page: Page, text: str, item: Item, *, id: str | None = None
) -> Unit:
    metadata = {
        "group": group,
        "source": source,
        "page": page.page,
        "place": page.place,
        "title": page.title,
    }
    content = sorted({**metadata, "text": text}.items()), item.text
    digest = hashlib.sha256(repr(content).encode("utf-8", "replace"))
    if item.image is not None:
        digest.update(item.image.tobytes())
    return Unit(id or group, source, item, metadata, text, digest.hexdigest())


def _thumbnail(image: "Image.Image") -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _listed(places: list[str]) -> str:
    """
    >>> _listed(["page 1", "page 2", "page 3", "page 4", "page 5"])
    'page 1, page 2, page 3 and 2 more'
    """
    shown = ", ".join(places[:3])
    return f"{shown} and {len(places) - 3} more" if len(places) > 3 else shown
