"""What artifacts were made of: the inputs in their records, and how two differ."""

from typing import Any

from layerflow import store
from layerflow.artifacts import RECORD
from layerflow.json_file import read_json

#: The newest artifacts of a step that are looked at for the nearest one.
_MOST_COMPARED = 50


def nearest(step: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The inputs of the artifact of ``step`` that differ least from these; of equal ones the newest."""
    folders = [each for each in (store.root() / step).glob("[!.]*") if each.is_dir()]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    known = list[dict[str, Any]]()
    for folder in folders[:_MOST_COMPARED]:
        try:
            content = read_json(folder / RECORD)["inputs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(content, dict):
            known.append(content)
    return min(known, key=lambda each: len(differences(each, inputs)), default=None)


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two nested dicts hold differently, by path: ``{"training.epochs": (5, 10)}``."""
    found = dict[str, tuple[Any, Any]]()
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= {f"{name}.{path}": pair for path, pair in differences(old, new).items()}
        elif old != new:
            found[name] = old, new
    return found
