"""What belongs to an artifact, by what its record and its parts say, which may come from anywhere."""

import hashlib
import json
from pathlib import Path

from layerflow import store
from layerflow.artifacts import RECORD
from layerflow.errors import DamagedError
from layerflow.parts import PARTS, parts_of

#: What may be in an artifact and comes from no list of files: ours, and Prefect's.
OWN = (RECORD, "result.json")


def listed(content: bytes) -> tuple[list[str], str]:
    """The files that a record lists, and the folder in which they are in the bucket.

    Raises:
        DamagedError: If it is no record, or names a file outside of its folder.
    """
    try:
        record = json.loads(content)
        files, digest = list(record["files"]), str(record["digest"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedError(f"{RECORD} is no record") from None
    if not all(name and store.is_below(name) and name not in OWN for name in files):
        raise DamagedError(f"{RECORD} names files outside of its folder")
    return files, hashlib.sha256(digest.encode()).hexdigest()[:16]


def parts_in(folder: Path) -> tuple[str, ...]:
    """The artifacts that the one in a folder shares with others; packs themselves share none."""
    if folder.parent.name == "packs":
        return ()
    try:
        return parts_of(folder)
    except (OSError, ValueError, RecursionError):
        raise DamagedError(f"{PARTS} does not name packs") from None
