"""Which artifacts living processes use, so that none is collected under them, however old it is.

Each process notes the artifacts that it finds or makes in a file of its own, ``<store>/.uses/<id>``, and holds a lock
beside it until it ends. The system frees the lock, so that the notes of a dead process count for nothing.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class Notes:
    """The artifacts of a store that one process uses.

    Args:
        root: The store's folder.
    """

    def __init__(self, root: Path) -> None:
        _remove_dead(root)
        self.root = root
        self._file = _folder(root) / uuid.uuid4().hex
        self._lock = FileLock(_lock_of(self._file))
        self._lock.acquire()
        self._file.touch()
        self._noted = set[str]()

    def add(self, artifact: str) -> None:
        """Note an artifact; the caller holds the lock of ``deciding``."""
        self._noted.add(artifact)
        with self._file.open("a") as file:
            file.write(f"{artifact}\n")

    def __contains__(self, artifact: str) -> bool:
        return artifact in self._noted

    def end(self) -> None:
        """Take the notes back, as the end of the process does."""
        self._lock.release()


_guard = threading.Lock()
#: The notes of this process; a process works on one store at a time.
_mine: Notes | None = None
_of_parents = list[Notes]()


def note(root: Path, artifact: str) -> None:
    """Keep an artifact from being collected while this process lives.

    Waits while a collection decides: whoever finds the artifact after this call can rely on it.

    Args:
        root: The store's folder.
        artifact: Its folder in the store, such as ``train_model/<key>``, whether or not it is there.
    """
    global _mine
    with _guard:
        if _mine is None or _mine.root != root or artifact not in _mine:
            with _deciding(root):
                if _mine is None or _mine.root != root:
                    if _mine:
                        _mine.end()
                    _mine = Notes(root)
                _mine.add(artifact)
    with contextlib.suppress(OSError):  # it is not there, or another user's
        os.utime(root / artifact)  # its age is that of its last use


def _begin_anew() -> None:
    """In a forked process: leave the notes of the parent, and their lock, to the parent."""
    global _guard, _mine
    _guard = threading.Lock()
    if _mine:
        _of_parents.append(_mine)
        _mine = None


os.register_at_fork(after_in_child=_begin_anew)


@contextlib.contextmanager
def deciding(root: Path) -> Iterator[set[str]]:
    """The artifacts in use. Until the block ends, no process begins to use another one."""
    with _deciding(root):
        yield {line for file in _alive(root) for line in file.read_text().splitlines()}


def _deciding(root: Path) -> FileLock:
    """What whoever notes an artifact holds for a moment, and a collection until it has decided."""
    return FileLock(_folder(root) / "deciding.lock")


def _alive(root: Path) -> list[Path]:
    return [file for file in _files(root) if not _is_dead(file)]


def _remove_dead(root: Path) -> None:
    for file in _files(root):
        if _is_dead(file):
            _lock_of(file).unlink(missing_ok=True)
            file.unlink()


def _files(root: Path) -> list[Path]:
    """The notes of all processes, the dead ones' too."""
    return [file for file in _folder(root).glob("?" * 32) if file.is_file()]


def _is_dead(file: Path) -> bool:
    lock = FileLock(_lock_of(file))
    try:
        with lock.acquire(blocking=False):
            return True
    except Timeout:
        return False


def _folder(root: Path) -> Path:
    folder = root / ".uses"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")
