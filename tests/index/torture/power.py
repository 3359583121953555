"""A file system that may lose whatever was not synced when the power goes.

Of a file the content at its last fsync is certain, of a folder the names at its last fsync.
What was done since is lost, or kept, or kept in part: any of the writes to a file may be on the
disk, one of them cut short; any of the changes to the names in a folder. A rename is one change;
between two folders the old name goes no earlier than the new one is certain. A file that grew
without its data has zeros there. An fsync of a file says nothing about its name.
All of that is what POSIX allows; the usual file systems are kinder.

Not simulated: disks that lie about what is durable, and damage to what nobody was writing.
"""

from typing import NamedTuple


class File:
    def __init__(self, content=b""):
        self.content = bytearray(content)
        self.durable = bytes(content)
        self.pending = []
        """(offset, bytes), or (size, None) of a truncation."""

    def write(self, offset, content):
        self.pending.append((offset, content))
        _write(self.content, offset, content)

    def sync(self):
        self.durable, self.pending = bytes(self.content), []

    def save(self, path, random, loss):
        """Write what may be there after a cut."""
        content = bytearray(self.durable)
        for offset, written in _kept(self.pending, random, loss):
            if written is not None and loss == "some" and random.integers(4) == 0:
                written = written[: int(random.integers(len(written) + 1))]
            _write(content, offset, written)
        path.write_bytes(content)


class Change(NamedTuple):
    """Of the names in a folder."""

    names: dict
    moved_to: "Folder | None"
    """Where else something is that was here."""


class Folder:
    def __init__(self, names=()):
        self.names = dict(names)
        self.durable = dict(self.names)
        self.pending = []

    @classmethod
    def load(cls, path):
        """A real folder, all of it durable."""
        return cls(
            (one.name, cls.load(one) if one.is_dir() else File(one.read_bytes()))
            for one in path.iterdir()
        )

    def change(self, names, moved_to=None):
        """Let names stand for something else, or for nothing (None)."""
        self.pending.append(Change(names, moved_to))
        _rename(self.names, names)

    def sync(self):
        self.durable, self.pending = dict(self.names), []

    def save(self, path, random, loss):
        names = dict(self.durable)
        for change in _kept(self.pending, random, loss):
            if change.moved_to is None or not change.moved_to.pending:
                _rename(names, change.names)
        path.mkdir()
        for name, node in names.items():
            node.save(path / name, random, loss)


class Disk:
    """What is below a real folder, changed by the system calls of a recorded process.

    `acknowledged` is a file beside it, whose bytes are counted.
    """

    def __init__(self, root, acknowledged):
        self._path = root
        self._acknowledged = acknowledged
        self._open = {}
        """By file descriptor: [node, offset]."""
        self.root = Folder.load(root)
        self.num_acknowledged = 0

    def apply(self, call):
        handler = getattr(self, f"_{call.name}", None)
        if handler is not None:
            handler(call.result, *call.arguments)
        else:  # none of ours is changed in a way that is not simulated
            assert not any(one in self._open for one in call.arguments), call
            assert not any(map(self._is_below, call.arguments)), call

    def is_open(self, descriptor, name):
        """Whether that is an open file of this name, folders before it."""
        node = self.root
        for part in name.split("/"):
            node = node.names[part]
        return descriptor in self._open and self._open[descriptor][0] is node

    def _openat(self, result, folder, name, flags, *_):
        path = name.decode()
        if path == str(self._acknowledged):
            self._open[result] = [None, 0]
        if (place := self._place(folder, name)) is None:
            return
        parent, last = place
        if last not in parent.names:
            assert "O_CREAT" in flags
            parent.change({last: File()})
        node = parent.names[last]
        if "O_TRUNC" in flags and node.content:
            _cut(node, 0)
        self._open[result] = [node, len(node.content) if "O_APPEND" in flags else 0]

    def _close(self, _, descriptor):
        self._open.pop(descriptor, None)

    def _read(self, result, descriptor, *_):
        if descriptor in self._open:
            self._open[descriptor][1] += result

    def _lseek(self, result, descriptor, *_):
        if descriptor in self._open:
            self._open[descriptor][1] = result

    def _write(self, result, descriptor, content, _):
        if descriptor not in self._open:
            return
        node, offset = self._open[descriptor]
        if node is None:
            self.num_acknowledged += result
        else:
            node.write(offset, content[:result])
            self._open[descriptor][1] += result

    def _pwrite64(self, result, descriptor, content, _, offset):
        if descriptor in self._open:
            self._open[descriptor][0].write(offset, content[:result])

    def _sendfile(self, result, target, source, *_):
        node, offset = self._open[source]
        self._write(result, target, bytes(node.content[offset : offset + result]), result)
        self._open[source][1] += result

    def _ftruncate(self, _, descriptor, size):
        if descriptor in self._open:
            _cut(self._open[descriptor][0], size)

    def _fsync(self, _, descriptor):
        if descriptor in self._open:
            self._open[descriptor][0].sync()

    _fdatasync = _fsync

    def _mkdir(self, _, name, __):
        if (place := self._place("AT_FDCWD", name)) is not None:
            parent, last = place
            parent.change({last: Folder()})

    def _unlinkat(self, _, folder, name, *__):
        if (place := self._place(folder, name)) is not None:
            parent, last = place
            parent.change({last: None})

    def _unlink(self, _, name):
        self._unlinkat(_, "AT_FDCWD", name)

    _rmdir = _unlink

    def _rename(self, _, old, new):
        places = [self._place("AT_FDCWD", name) for name in (old, new)]
        if None in places:
            assert places == [None, None]
            return
        (parent, before), (target, after) = places
        node = parent.names[before]
        if parent is target:
            parent.change({before: None, after: node})
        else:
            target.change({after: node})
            parent.change({before: None}, target)

    def _mmap(self, _, __, ___, protection, flags, descriptor, *____):
        is_written = "PROT_WRITE" in protection and "MAP_SHARED" in flags
        assert not (is_written and descriptor in self._open)

    def _is_below(self, name):
        return isinstance(name, bytes) and name.startswith(bytes(self._path))

    def _place(self, folder, name):
        """The folder that has a name, and the name's last part; None outside."""
        if isinstance(folder, int) and not name.startswith(b"/"):
            return (self._open[folder][0], name.decode()) if folder in self._open else None
        if not self._is_below(name):
            return None
        *parts, last = name.decode().removeprefix(str(self._path)).split("/")[1:] or [""]
        node = self.root
        for part in parts:
            node = node.names[part]
        return (node, last) if last else (Folder({"": self.root}), "")


def _kept(pending, random, loss):
    """Which of the changes that were not synced are there after a cut."""
    match loss:
        case "nothing":
            return pending
        case "everything":
            return []
        case "the last":
            return pending[: int(random.integers(len(pending) + 1))]
    return [one for one in pending if random.integers(2)]


def _write(content, offset, written):
    if written is None:
        del content[offset:]
        written = b""
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(written)] = written


def _cut(node, size):
    node.write(size, None)


def _rename(names, changed):
    for name, node in changed.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
