"""How a folder of images must be laid out: ``train/<class>/``, and ``test/<class>/`` where there is one."""

import errno
import logging
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from layerflow.errors import DatasetError, FolderChangedError, heals

log = logging.getLogger(__name__)


SPLITS = ("train", "test")
#: Files that are looked into; others in the folder of a class are left out, and named.
IMAGE_NAMES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
#: Folders in each other below that of a class: more are a mistake, and end where the system takes no longer path.
_MOST_LEVELS = 50
#: Names that a sentence names; the rest stands in the log.
MOST_NAMED = 20
#: Characters of a path that a sentence shows: its beginning and, most of them, its end.
_MOST_SHOWN = 200


class ImageFile(NamedTuple):
    """A file of the tree. ``shape`` is (height, width, channels), or ``reason`` says why it is no image.

    ``slices`` has its value of each column of ``data.slices``.
    """

    path: str
    split: str
    label: str
    digest: str
    shape: tuple[int, int, int] | None
    reason: str
    slices: tuple[str, ...] = ()


def find_files(root: Path) -> list["FoundFile"]:
    """List the files below ``root`` with their sizes, times and inodes.

    Raises:
        FolderChangedError: If a folder disappears meanwhile.
        DatasetError: If a folder can't be read.
    """
    try:
        return list(_walk(root))
    except FileNotFoundError as error:
        raise FolderChangedError(
            f"{brief(root)} must not change while it is read. {brief(error.filename)} was removed meanwhile; run "
            "again when nothing writes there."
        ) from error
    except OSError as error:
        if heals(error) and error.errno != errno.ENAMETOOLONG:
            raise
        raise DatasetError(
            f"{brief(error.filename)} must be a folder that can be listed. Received: {error.strerror}; change "
            "its permissions or shorten its path, or move it away."
        ) from error


class FoundFile(NamedTuple):
    """A file as the system knows it; ``path`` is relative to the folder."""

    split: str
    label: str
    path: str
    mode: int
    #: Size, times of content and of attributes, inode: a file of which none has changed was not changed.
    status: list[int]


def _walk(root: Path) -> Iterator[FoundFile]:
    """Each file that is named as an image."""
    if not root.is_dir():
        raise DatasetError(
            f"data.path must be a folder with train/<class>/ and, where you have one, test/<class>/. {brief(root)} "
            f"{'is not a folder' if root.exists() else 'does not exist'}."
        )
    found = {entry.name for entry in os.scandir(root) if _is_folder(entry) and not entry.name.startswith(".")}
    if "train" not in found or found - set(SPLITS):
        raise DatasetError(
            f"data.path must hold train/<class>/ and, where you have one, test/<class>/. {brief(root)} holds "
            f"{', '.join(map(brief, sorted(found))) or 'no folder'}; rename or move what is there."
        )
    others: list[str] = []
    start = len(os.path.join(root, ""))
    for split in sorted(found):
        for entry in sorted(os.scandir(root / split), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                raise DatasetError(
                    f"{brief(root / split)} must hold a folder for each class and nothing else. It holds the file "
                    f"{brief(entry.name)}; move it into its class's folder, or away."
                )
            for path, status in _files(root / split / entry.name, ()):
                relative = path[start:]
                if os.path.splitext(path)[1].lower() in IMAGE_NAMES:
                    known = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
                    yield FoundFile(split, entry.name, relative, stat.S_IFMT(status.st_mode), known)
                else:
                    others.append(relative)
    if others:
        shown = ", ".join(map(brief, others[:MOST_NAMED]))
        log.warning("%d files that are not named as images are left out: %s%s", len(others), shown, _more(others))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
    here = folder.stat()
    if len(above) == _MOST_LEVELS:
        raise DatasetError(
            f"The folder of a class must be at most {_MOST_LEVELS} folders deep. {brief(folder)} is deeper; move its "
            "images up."
        )
    if (here.st_dev, here.st_ino) in above:
        raise DatasetError(f"{brief(folder)} must not lead back to a folder above it, as that link does; remove it.")
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        try:
            status = entry.stat()
        except OSError:  # a link to nothing, or to itself
            status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from _files(Path(entry.path), (*above, (here.st_dev, here.st_ino)))
        else:
            yield entry.path, status


def class_names(root: Path, files: list[ImageFile]) -> tuple[str, ...]:
    """The names of the classes, in order.

    Raises:
        DatasetError: If there are fewer than two, two that a file system may hold for one, one without images, one that
            only test has, or one whose name can't be printed.
    """
    folders = {
        split: {entry.name for entry in os.scandir(root / split) if not entry.name.startswith(".")}
        for split in SPLITS
        if (root / split).is_dir()
    }
    names = tuple(sorted(folders["train"]))
    if odd := [name for name in (*names, *folders.get("test", ())) if not name.isprintable()]:
        raise DatasetError(f"The name of a class must be printable text. Received: {brief(odd[0])}; rename its folder.")
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DatasetError(
                f"Classes must differ by more than upper and lower case. {root / 'train'} holds {brief(other)} and "
                f"{brief(name)}; put them together, or rename one."
            )
    if only := sorted(folders.get("test", set()) - folders["train"]):
        raise DatasetError(
            f"Each class of test/ must be in train/ too. {brief(only[0])} is not; rename or remove its folder."
        )
    filled = {(file.split, file.label) for file in files}
    for split, labels in folders.items():
        if empty := [label for label in sorted(labels) if (split, label) not in filled]:
            raise DatasetError(
                f"Each class must have images ({', '.join(sorted(IMAGE_NAMES))}). {brief(root / split / empty[0])} has "
                "none; add some, or remove the folder."
            )
    if len(names) < 2:
        raise DatasetError(
            f"{root / 'train'} must hold at least two folders, one for each class. It holds "
            f"{brief(names[0]) if names else 'none'}; add the others."
        )
    return names


def brief(name: object) -> str:
    """A name as one line, whatever bytes it is made of."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:50]}…{text[51 - _MOST_SHOWN :]}"


def _more(names: list[str]) -> str:
    return f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
