"""A folder of the user's own images as a TFDS dataset: ``train/<class>/*.png``, and ``test/`` where there is one.

What is in the folder is known by the content of its files. An index in the store remembers each file's SHA-256 with its
size and time, so that only files that changed are read again.
"""

import hashlib
import itertools
import json
import logging
import os
import stat
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from layerflow import images, store
from layerflow.errors import DatasetError, FolderChangedError

T = TypeVar("T")
S = TypeVar("S")
log = logging.getLogger(__name__)

SPLITS = ("train", "test")
#: Files that are looked into; others in the folder of a class are left out, and named.
_NAMES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
#: A file that changed so shortly before the index was written may change again without another time: git's rule.
_RACY_NS = 2_000_000_000
#: A listing is believed for this many times as long as it took: a run asks for it a few times in its first seconds.
_BELIEVED = 10
#: Files that a thread takes at a time, and how often that is done before the results are used: enough for all threads,
#: few enough for any memory.
_PART, _AHEAD = 32, 2 * (os.cpu_count() or 1)
#: Names that a sentence names; the rest stands in the log.
_NAMED = 20

_listings: dict[Path, tuple[float, "Listing"]] = {}


class ImageFile(NamedTuple):
    """A file of the tree. ``shape`` is (height, width, channels), or ``reason`` says why it is no image."""

    path: str
    split: str
    label: str
    digest: str
    shape: tuple[int, int, int] | None
    reason: str


class Listing(NamedTuple):
    """What is in a folder, in an order that its content decides; ``digest`` is that of all of it."""

    root: Path
    files: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    digest: str


def scan(root: Path) -> Listing:
    """List the images below ``root`` and know their content.

    Raises:
        DatasetError: If the folder is not laid out as ``train/<class>/``, with at least two classes of images.
    """
    root = root.expanduser().absolute()
    taken, listing = _listings.get(root, (0.0, None))
    if listing and time.monotonic() < taken:
        return listing
    began = time.monotonic()
    found = list(_walk(root))
    files = sorted(_learn(root, found), key=lambda file: (file.split, file.digest, file.label, file.path))
    classes = _classes(root, files)
    content = hashlib.sha256(json.dumps(classes).encode())
    for file in files:
        content.update(f"{file.split}/{classes.index(file.label)}/{file.digest}\n".encode())
    listing = Listing(root, tuple(files), classes, content.hexdigest())
    _listings[root] = time.monotonic() + _BELIEVED * (time.monotonic() - began), listing
    return listing


def forget(root: Path) -> None:
    """Let go of what was listed: a million files take half a gigabyte, which training needs."""
    _listings.pop(root.expanduser().absolute(), None)


def require_few_broken(listing: Listing, broken: list[tuple[str, str]], allowed: float) -> None:
    """Name all images that can't be read, and refuse them where they are more than the share ``allowed``.

    Raises:
        DatasetError: With their number and names.
    """
    if not broken:
        return
    total = len(listing.files)
    named = [f"{_shown(path)} ({reason})" for path, reason in sorted(broken)]
    rest = f" and {len(named) - _NAMED:,} more, which the log names" if len(named) > _NAMED else ""
    sentence = f"{len(named):,} of {total:,} files in {listing.root} can't be read: {', '.join(named[:_NAMED])}{rest}"
    if len(broken) > allowed * total:
        for line in named[_NAMED:]:
            log.error("can't be read: %s", line)
        raise DatasetError(
            f"The images must be whole, but for a share of data.max_broken ({allowed:g}). {sentence}; mend or remove "
            "them, or raise data.max_broken to leave them out."
        )
    for line in named:
        log.warning("left out, for it can't be read: %s", line)


def shape_of(listing: Listing, image_size: tuple[int, int] | None, channels: int | None) -> tuple[int, int, int]:
    """The shape that all images get: as asked for, or their own where it is one; grey only if all of them are.

    Raises:
        DatasetError: If they have several sizes and none is asked for, or none can be read.
    """
    shapes = Counter(file.shape for file in listing.files if file.shape)
    sizes = Counter[tuple[int, int]]()
    for (height, width, _), count in shapes.items():
        sizes[height, width] += count
    if not sizes:
        require_few_broken(listing, [(file.path, file.reason) for file in listing.files], allowed=0)
    if image_size is None and len(sizes) > 1:
        common = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in sizes.most_common(3))
        raise DatasetError(
            f"The images must be of one size, or data.image_size must say which they get. {listing.root} holds "
            f"{len(sizes):,} sizes: {common}{', …' if len(sizes) > 3 else ''}; set --data.image_size, to 32x32 say."
        )
    height, width = image_size or next(iter(sizes))
    return height, width, channels or max(shape[2] for shape in shapes)


def read_batches(
    listing: Listing, split: str, shape: tuple[int, int, int], broken: list[tuple[str, str]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images ``uint8`` of ``(some, *shape)`` with their class numbers; one that can't be read goes to ``broken``.

    Raises:
        FolderChangedError: If a file is not what it was when it was listed.
    """
    numbers = {name: number for number, name in enumerate(listing.classes)}
    files = [file for file in listing.files if file.split == split]

    def read(file: ImageFile) -> Any:
        if file.reason:
            return images.BrokenImageError(file.reason)
        try:
            content = (listing.root / file.path).read_bytes()
        except FileNotFoundError:
            content = None
        if content is None or hashlib.sha256(content).hexdigest() != file.digest:
            _listings.pop(listing.root, None)
            raise FolderChangedError(
                f"{listing.root} must be at rest while it is read. {_shown(file.path)} changed meanwhile; run again "
                "when nothing writes there."
            )
        try:
            return images.read(content, shape)
        except images.BrokenImageError as error:
            return error

    for part, found in _in_threads(read, files):
        whole = []
        for file, image in zip(part, found, strict=True):
            if isinstance(image, images.BrokenImageError):
                broken.append((file.path, str(image)))
            else:
                whole.append((image, numbers[file.label]))
        if whole:
            yield np.stack([image for image, _ in whole]), np.array([label for _, label in whole])


class _Found(NamedTuple):
    """A file as the system knows it; ``path`` is relative to the folder."""

    split: str
    label: str
    path: str
    size: int
    time: int
    mode: int


def _walk(root: Path) -> Iterator[_Found]:
    """Each file that is named as an image."""
    if not root.is_dir():
        raise DatasetError(
            f"data.path must be a folder with train/<class>/ and, where you have one, test/<class>/. {root} "
            f"{'is no folder' if root.exists() else 'does not exist'}."
        )
    found = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    if "train" not in found or found - set(SPLITS):
        raise DatasetError(
            f"data.path must hold train/<class>/ and, where you have one, test/<class>/. {root} holds "
            f"{', '.join(map(_shown, sorted(found))) or 'no folder'}; rename or move what is there."
        )
    others: list[str] = []
    for split in sorted(found):
        for entry in sorted(os.scandir(root / split), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                raise DatasetError(
                    f"{_shown(root / split)} must hold a folder for each class and nothing else. It holds the file "
                    f"{_shown(entry.name)}; move it into its class's folder, or away."
                )
            for path, status in _files(root / split / entry.name, ()):
                relative = os.path.relpath(path, root)
                if os.path.splitext(path)[1].lower() in _NAMES:
                    yield _Found(
                        split, entry.name, relative, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode)
                    )
                else:
                    others.append(relative)
    if others:
        shown = ", ".join(map(_shown, others[:_NAMED]))
        log.warning("%d files that are not named as images are left out: %s%s", len(others), shown, _more(others))


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:
        raise DatasetError(f"{_shown(folder)} must not lead back to a folder above it, as that link does; remove it.")
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


def _learn(root: Path, found: list[_Found]) -> Iterable[ImageFile]:
    """Digest and shape of each file: from the index where size and time are as they were, else from its content."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    index = store.root() / "folders" / f"{name}.json"
    with store.locked(f"folder-{name}"):
        known = _read_index(index)
        new = [each for each in found if known.get(each.path, [None])[:2] != [each.size, each.time]]
        learned = _in_threads(lambda each: _look(root, each), new)
        fresh = {each.path: seen for part, looks in learned for each, seen in zip(part, looks, strict=True)}
        index_now = {each.path: fresh.get(each.path) or known[each.path] for each in found}
        gone = known.keys() - index_now.keys()
        if fresh or gone:
            if known:
                changed = len(fresh.keys() & known.keys())
                log.info("%s: %d files added, %d written anew, %d gone", root, len(fresh) - changed, changed, len(gone))
            now = time.time_ns()
            lasting = {path: seen for path, seen in index_now.items() if now - seen[1] > _RACY_NS}
            index.parent.mkdir(parents=True, exist_ok=True)
            store.write_atomically(index, json.dumps(lasting).encode())
    shapes: dict[tuple[int, int, int], tuple[int, int, int]] = {}  # one object for each, however many files have it
    for each in found:
        _, _, digest, shape, reason = index_now.pop(each.path)
        if shape:
            shape = shapes.setdefault(tuple(shape), tuple(shape))
        yield ImageFile(each.path, each.split, each.label, digest, shape, reason)


def _look(root: Path, file: _Found) -> list[Any]:
    """``[size, time, digest, shape or nothing, reason or nothing]``, as the index holds them."""
    known = [file.size, file.time]
    if not stat.S_ISREG(file.mode):
        return [*known, "", None, "a link to nothing" if stat.S_ISLNK(file.mode) else "no regular file"]
    try:
        content = (root / file.path).read_bytes()
    except (PermissionError, FileNotFoundError) as error:
        return [*known, "", None, (error.strerror or str(error)).lower()]
    digest = hashlib.sha256(content).hexdigest()
    try:
        return [*known, digest, images.look(content), ""]
    except images.BrokenImageError as error:
        return [*known, digest, None, str(error)]


def _read_index(index: Path) -> dict[str, list[Any]]:
    try:
        return json.loads(index.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:  # damaged: it only saves time
        return {}


def _classes(root: Path, files: list[ImageFile]) -> tuple[str, ...]:
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
        raise DatasetError(
            f"The name of a class must be printable text. Received: {_shown(odd[0])}; rename its folder."
        )
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DatasetError(
                f"Classes must differ by more than upper and lower case. {root / 'train'} holds {_shown(other)} and "
                f"{_shown(name)}; put them together, or rename one."
            )
    if only := sorted(folders.get("test", set()) - folders["train"]):
        raise DatasetError(
            f"Each class of test/ must be in train/ too. {_shown(only[0])} is not; rename or remove its folder."
        )
    filled = {(file.split, file.label) for file in files}
    for split, labels in folders.items():
        if empty := [label for label in sorted(labels) if (split, label) not in filled]:
            raise DatasetError(
                f"Each class must have images ({', '.join(sorted(_NAMES))}). {_shown(root / split / empty[0])} has "
                "none; add some, or remove the folder."
            )
    if len(names) < 2:
        raise DatasetError(
            f"{root / 'train'} must hold at least two folders, one for each class. It holds "
            f"{_shown(names[0]) if names else 'none'}; add the others."
        )
    return names


def _in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[tuple[list[S], list[T]]]:
    """Parts of the items with their results, in order; Pillow and hashlib let the other threads run meanwhile.

    A thread takes a part at a time: with small files, handing over single ones costs more than reading them.
    """

    def work_through(part: list[S]) -> tuple[list[S], list[T]]:
        return part, [work(item) for item in part]

    rest = iter(items)
    parts = iter(lambda: list(itertools.islice(rest, _PART)), [])
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        ahead = deque(threads.submit(work_through, part) for part in itertools.islice(parts, _AHEAD))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(threads.submit(work_through, part) for part in itertools.islice(parts, 1))


def _shown(name: object) -> str:
    """A name as one line, whatever bytes it is made of."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def _more(names: list[str]) -> str:
    return f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
