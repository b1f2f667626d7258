"""The image files that a command line names: files, folders, patterns, and lists on stdin."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerflow.data.image_folder_layout import IMAGE_NAMES, brief
from layerflow.errors import UserError


def image_files(paths: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    """Each file that is meant, in the order of the arguments and, within a folder or a pattern, of the names.

    Args:
        paths: Files, folders, whose image files are taken to any depth, and patterns such as ``photos/**/*.jpg``; ``-``
            stands for ``listed``.
        listed: Paths of files, one per line.

    Raises:
        UserError: If a path is anything else. A listed file that isn't there is left to whoever reads it.
    """
    for path in paths:
        if path == "-":
            yield from (name for line in listed if (name := line.rstrip("\r\n")))
        elif os.path.isdir(path):
            yield from _below(path)
        elif os.path.lexists(path):
            yield path
        else:
            found = _matching(path)
            if not found:
                raise UserError(
                    f"Each path must be a file, a folder, a pattern that matches some, or - for a list on stdin. "
                    f"Received: {brief(path)}, which doesn't exist; correct it."
                )
            yield from image_files(found, ())


def _matching(pattern: str) -> list[str]:
    """The paths that match, each file once: through a link to a folder above it, a file has many paths."""
    known = dict[str, str]()
    for path in sorted(glob.glob(pattern, recursive=True), key=lambda path: (path.count(os.sep), path)):
        known.setdefault(os.path.realpath(path), path)
    return sorted(known.values())


def classes_below(folder: str) -> Iterator[tuple[str, str]]:
    """Class and path of each image file in a folder of ``<class>/`` folders.

    Raises:
        UserError: If it is no such folder.
    """
    root = Path(folder)
    names = sorted(each.name for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise UserError(
            f"--evaluate takes one folder with a folder for each class, such as pets/test with cat/ and dog/. "
            f"Received: {brief(folder)}, which has none; name the folder above those of the classes."
        )
    for name in names:
        yield from ((name, path) for path in _below(str(root / name)))


def _below(folder: str) -> Iterator[str]:
    """The files named as images, to any depth; links to folders are not followed, and hidden ones are left out."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_NAMES:
                yield os.path.join(here, name)
