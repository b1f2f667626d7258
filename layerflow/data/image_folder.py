"""A folder of your own images as a TFDS dataset: ``train/<class>/*.png``, and ``test/`` where there is one.

What is in the folder is known by the content of its files. An index in the store remembers each file's SHA-256 with its
size, times and inode, so that only files that changed are read again.
"""

import hashlib
import json
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerflow import store
from layerflow.code_digest import code_digest
from layerflow.data import decode, slices_csv
from layerflow.data.image_folder_layout import MOST_NAMED, FoundFile, ImageFile, brief, class_names, find_files
from layerflow.data.rows import Content, Row
from layerflow.data.threads import in_threads
from layerflow.errors import DatasetError, FolderChangedError

log = logging.getLogger(__name__)
#: A file that changed so shortly before it was looked at may change again without another time: git's rule.
_RACY_NS = 2_000_000_000
#: Most files and most bytes of images in a part: more cost memory, fewer cost time.
_PART, _PART_BYTES = 32, 2**22
#: Largest file that is read: larger ones are no photographs.
_MOST_BYTES = 2**28
#: Seconds between two lines that say how far reading is.
_PROGRESS_SECONDS = 10.0
#: The row of the image that was made of the file with a SHA-256.
Known = Callable[[bytes], Row | None]
_listings: dict[tuple[Path, Path | None], "Listing"] = {}


class Listing(NamedTuple):
    """What is in a folder, in an order that its content decides; ``digest`` is that of all of it.

    ``columns`` are those of ``data.slices``, which no digest of images depends on.
    """

    root: Path
    files: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    digest: str
    columns: tuple[str, ...] = ()


def scan(root: Path, slices: Path | None = None) -> Listing:
    """List the images below ``root`` and know their content, as they are now.

    Args:
        slices: The CSV file that gives the images their slices.

    Raises:
        DatasetError: If the folder is not laid out as ``train/<class>/``, with at least two classes of images, or
            ``slices`` is no such file.
    """
    root = root.expanduser().absolute()
    began = time.time_ns()
    files = sorted(
        _learn(root, find_files(root), began), key=lambda file: (file.split, file.digest, file.label, file.path)
    )
    classes = class_names(root, files)
    numbers = {name: number for number, name in enumerate(classes)}
    content = hashlib.sha256(json.dumps(classes).encode())
    for file in files:
        content.update(f"{file.split}/{numbers[file.label]}/{file.digest}\n".encode())
    columns, files = slices_csv.sliced(files, slices) if slices else ((), files)
    _listings[root, slices] = Listing(root, tuple(files), classes, content.hexdigest(), columns)
    return _listings[root, slices]


def listed(root: Path, slices: Path | None = None) -> Listing:
    """The listing that ``scan`` made last, until it is forgotten: what decided a key is what is then read."""
    return _listings.get((root.expanduser().absolute(), slices)) or scan(root, slices)


def forget() -> None:
    """Let go of what was listed: a million files take half a gigabyte, which training needs."""
    _listings.clear()


def require_few_broken(listing: Listing, broken: list[tuple[str, str]], allowed: float) -> None:
    """Name all images that can't be read, and refuse them where they are more than the share ``allowed``.

    Raises:
        DatasetError: With their number and names.
    """
    if not broken:
        return
    total = len(listing.files)
    named = [f"{brief(path)} ({reason})" for path, reason in sorted(broken)]
    rest = f" and {len(named) - MOST_NAMED:,} more, which the log names" if len(named) > MOST_NAMED else ""
    sentence = (
        f"{len(named):,} of {total:,} files in {brief(listing.root)} can't be read: "
        f"{', '.join(named[:MOST_NAMED])}{rest}"
    )
    if len(broken) > allowed * total:
        for line in named[MOST_NAMED:]:
            log.error("can't be read: %s", line)
        raise DatasetError(
            f"The images must be whole, but for a share of data.max_broken ({allowed:g}). {sentence}; repair or remove "
            "them, or raise data.max_broken to leave them out."
        )
    for line in named:
        log.warning("left out because it can't be read: %s", line)


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
            f"The images must be of one size, or data.image_size must say which they get. {brief(listing.root)} holds "
            f"{len(sizes):,} sizes: {common}{', …' if len(sizes) > 3 else ''}; set --data.image_size, to 32x32 say."
        )
    height, width = image_size or next(iter(sizes))
    return height, width, channels or max(shape[2] for shape in shapes)


def read(
    listing: Listing, split: str, shape: tuple[int, int, int], known: Known, broken: list[tuple[str, str]]
) -> Iterator[tuple[ImageFile, Row | Content]]:
    """Each file, with the row that its image has in a pack, or the image, ``uint8`` of ``shape``.

    A file that is ``known`` is not read. One that can't be read goes to ``broken``.

    Raises:
        FolderChangedError: If a file is not what it was when it was listed.
    """
    files = [file for file in listing.files if file.split == split]
    size = max(1, min(_PART, _PART_BYTES // int(np.prod(shape))))
    for part, found in in_threads(lambda file: _read_file(listing, file, shape, known), files, size):
        for file, image in zip(part, found, strict=True):
            if isinstance(image, decode.BrokenImageError):
                broken.append((file.path, str(image)))
            else:
                yield file, image


def _read_file(
    listing: Listing, file: ImageFile, shape: tuple[int, int, int], known: Known
) -> Row | Content | decode.BrokenImageError:
    if file.reason:
        return decode.BrokenImageError(file.reason)
    if row := known(bytes.fromhex(file.digest)):
        return row
    try:
        content = (listing.root / file.path).read_bytes()
    except FileNotFoundError:
        content = None
    if content is None or hashlib.sha256(content).hexdigest() != file.digest:
        _unlearn(listing.root, file.path)
        raise FolderChangedError(
            f"{brief(listing.root)} must not change while it is read. {brief(file.path)} changed meanwhile; run "
            "again when nothing writes there."
        )
    try:
        return Content.of(decode.read(content, shape))
    except decode.BrokenImageError as error:
        return error


def _learn(root: Path, found: list[FoundFile], began: int) -> Iterable[ImageFile]:
    """Digest and shape of each file: from the index where the system says it is as it was, else from its content."""
    index = _index_of(root)
    with store.locked(f"folder-{index.stem}"):
        known = _read_index(index)
        new = [each for each in found if each.path not in known or known[each.path][0] != each.status]
        seen: dict[str, list[Any]] = {}
        told = time.monotonic()
        for part, looks in in_threads(lambda file: _look(root, file), new, _PART):
            seen |= {each.path: look for each, look in zip(part, looks, strict=True)}
            if time.monotonic() - told > _PROGRESS_SECONDS:
                log.info("%s: %s of %s new files read", brief(root), f"{len(seen):,}", f"{len(new):,}")
                told = time.monotonic()
        _say_what_is_new(root, known, seen, {each.path for each in found})
        index_now = {each.path: seen.get(each.path) or known[each.path] for each in found}
        if seen or len(index_now) < len(known):
            for status, digest, *_ in index_now.values():
                if not digest or began - max(status[1], status[2]) < _RACY_NS:
                    status.clear()  # to be looked at again
            _write_index(index, index_now)
        elif known:
            os.utime(index)  # its age is that of its last use
    shapes: dict[tuple[int, int, int], tuple[int, int, int]] = {}  # one object for each, however many files have it
    for each in found:
        _, digest, shape, reason = index_now.pop(each.path)
        if shape:
            shape = shapes.setdefault(tuple(shape), tuple(shape))
        yield ImageFile(each.path, each.split, each.label, digest, shape, reason)


def _say_what_is_new(root: Path, known: dict[str, Any], seen: dict[str, Any], now: set[str]) -> None:
    added, gone = len(now - known.keys()), len(known.keys() - now)
    changed = sum(look[1] != known[path][1] for path, look in seen.items() if path in known)
    if known and (added or changed or gone):
        log.info("%s: %d files added, %d changed, %d removed", brief(root), added, changed, gone)


def _look(root: Path, file: FoundFile) -> list[Any]:
    """``[status, digest or nothing, shape or nothing, reason or nothing]``, as the index holds them."""
    status = list(file.status)
    if not stat.S_ISREG(file.mode):
        return [status, "", None, "a link to nothing" if stat.S_ISLNK(file.mode) else "no regular file"]
    if status[0] > _MOST_BYTES:
        return [status, "", None, f"larger than {_MOST_BYTES // 2**20} MiB"]
    try:
        content = (root / file.path).read_bytes()
    except (PermissionError, FileNotFoundError) as error:
        return [status, "", None, (error.strerror or str(error)).lower()]
    digest = hashlib.sha256(content).hexdigest()
    try:
        return [status, digest, decode.look(content), ""]
    except decode.BrokenImageError as error:
        return [status, digest, None, str(error)]


def _index_of(root: Path) -> Path:
    code = code_digest("layerflow.data.decode")  # what it says of a file is kept as long as it would say the same
    name = hashlib.sha256(os.fsencode(root) + code.encode()).hexdigest()[:32]
    return store.root() / "folders" / f"{name}.json"


def _unlearn(root: Path, path: str) -> None:
    """Take a file that is not what the index says out of it, so that the next try looks at it again."""
    index = _index_of(root)
    with store.locked(f"folder-{index.stem}"):
        known = _read_index(index)
        if known.pop(path, None):
            _write_index(index, known)


def _read_index(index: Path) -> dict[str, list[Any]]:
    try:
        content = index.read_bytes()
    except FileNotFoundError:
        return {}
    digest, _, body = content.partition(b"\n")
    if digest != _digest_of(body):  # damaged: it only saves time
        return {}
    return json.loads(body)


def _write_index(index: Path, known: dict[str, list[Any]]) -> None:
    body = json.dumps(known).encode()
    index.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomically(index, _digest_of(body) + b"\n" + body)


def _digest_of(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
