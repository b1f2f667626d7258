"""JSON from disk, read as what it is: data that anyone may have written."""

import json
from pathlib import Path
from typing import Any

#: A receipt with 100,000 classes has 20 MB. What is larger, or nested deeper, was not written by layerflow.
_MOST_BYTES, _MOST_LEVELS = 64 * 2**20, 50


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not JSON in UTF-8, is larger than 64 MiB, or is nested more than 50 levels deep.
    """
    with file.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{file} is larger than {_MOST_BYTES} bytes")
    try:
        found = json.loads(content.decode())
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair can't be printed
    except RecursionError:
        raise ValueError(f"{file} is nested too deep") from None
    if _levels(found) > _MOST_LEVELS:
        raise ValueError(f"{file} is nested too deep")
    return found


def _levels(content: Any) -> int:
    """How deep lists and objects are nested, counted no further than needed."""
    levels, inner = 0, [content]
    while inner and levels <= _MOST_LEVELS:
        parts = [part for part in inner if isinstance(part, dict | list)]
        inner = [each for part in parts for each in (part.values() if isinstance(part, dict) else part)]
        levels += bool(parts)
    return levels
