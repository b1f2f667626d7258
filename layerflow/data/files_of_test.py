"""The files that the test images of a version of data were made of, where they are still there."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from layerflow import store
from layerflow.code_digest import code_digest
from layerflow.data import image_folder
from layerflow.data.image_folder_layout import brief
from layerflow.errors import DatasetError, FolderChangedError
from layerflow.records import DatasetRef

log = logging.getLogger(__name__)


def files_of_test(data: DatasetRef, root: Path | None) -> list[tuple[str, str, int]]:
    """Path, SHA-256, and row among the test images, of each file below ``root`` that became a test image.

    Empty if the images were not files, or if their folder can't be read any more.
    """
    made = store.path(data.folder) / "test_sources.npy"
    if root is None or not made.exists():
        return []
    rows = {source.tobytes(): row for row, source in enumerate(np.load(made, allow_pickle=False))}
    try:
        listing = image_folder.listed(root)
    except (DatasetError, FolderChangedError, OSError) as error:
        log.warning("the files of the test images in %s are not compared: %s", brief(root), error)
        return []
    rule, found = code_digest("layerflow.data.decode").encode(), list[tuple[str, str, int]]()
    for file in listing.files:
        source = hashlib.sha256(bytes.fromhex(file.digest) + rule).digest()
        if (row := rows.pop(source, None)) is not None:
            found.append((str(listing.root / file.path), file.digest, row))
    return found
