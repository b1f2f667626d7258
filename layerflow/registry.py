"""Published models: ``<store>/models/<name>/<N>/``, the layout that TF Serving serves the highest number of.

A version appears whole or not at all, and is never rewritten.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.errors import DamagedError
from layerflow.manifest import EXTRA, write_digests
from layerflow.records import ExportRef

RECEIPT = f"{EXTRA}/receipt.json"


def home(name: str) -> Path:
    """The folder of all versions of a model."""
    return store.root() / "models" / name


def names() -> list[str]:
    """The models that have a published version, in order of name."""
    models = store.root() / "models"
    found = [folder.name for folder in models.iterdir()] if models.is_dir() else []
    return sorted(name for name in found if not name.startswith(".") and versions(name))


def versions(name: str) -> list[int]:
    """The published versions of a model, newest first. What is no plain positive integer is none."""
    folders = home(name).iterdir() if home(name).is_dir() else []
    found = [folder.name for folder in folders if folder.is_dir()]
    return sorted((int(version) for version in found if _is_version(version)), reverse=True)


def receipt_of(name: str, version: int) -> dict[str, Any] | None:
    """The receipt that a version carries, or nothing where it carries none that can be read."""
    try:
        return json.loads((home(name) / str(version) / RECEIPT).read_text())
    except (OSError, ValueError):
        return None


def publish(name: str, version: int, export: ExportRef, receipt: dict[str, Any]) -> Path:
    """Publish an export with its receipt as ``version``, and return its folder.

    The caller holds the lock of the model and took ``version`` under it.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
    """
    final = home(name) / str(version)
    staging = home(name) / f".staging-{version}-{os.getpid()}"
    home(name).mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(store.path(export.saved_model), staging)
        if store.digests(staging) != export.files:
            raise DamagedError(f"The copy of {export.saved_model} is not what was exported; it was not published.")
        (staging / RECEIPT).write_text(json.dumps(receipt, indent=2))
        write_digests(staging)
        store.sync(staging)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    store.sync_entry(home(name))
    return final


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and text == str(int(text)) and int(text) > 0
