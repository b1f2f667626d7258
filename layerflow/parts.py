"""The artifacts that another one shares with others: a version of data needs packs of images."""

import json
import re
from pathlib import Path

#: Written beside what a step made, if that needs others: their folders, as a list.
PARTS = "parts.json"
#: The only artifacts that others share; they have no parts themselves.
_PART = re.compile("packs/[0-9a-f]{32}")


def parts_of(folder: Path) -> tuple[str, ...]:
    """The artifacts, such as ``packs/<key>``, that the one in ``folder`` needs.

    Raises:
        OSError: If the list of them can't be read.
        ValueError: If it names anything else.
    """
    if not (folder / PARTS).exists():
        return ()
    parts = json.loads((folder / PARTS).read_bytes())
    if not isinstance(parts, list) or not all(isinstance(each, str) and _PART.fullmatch(each) for each in parts):
        raise ValueError(f"{folder / PARTS} must name packs")
    return tuple(parts)
