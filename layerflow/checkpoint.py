"""What a training needs to go on as if it had never stopped: one file, whole or not there."""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from layerflow import store

log = logging.getLogger(__name__)

_DIGEST_BYTES = 32


def save(file: Path, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Replace ``file`` by a checkpoint of ``arrays`` and ``state`` (JSON), headed by its SHA-256."""
    buffer = io.BytesIO()
    content: dict[str, Any] = {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    np.savez(buffer, **content)
    archive = buffer.getvalue()
    store.write_atomically(file, hashlib.sha256(archive).digest() + archive)


def restore(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return the arrays and the state of ``file``, or nothing where there is none or its bytes are damaged."""
    if not file.exists():
        return None
    content = file.read_bytes()
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        log.warning("the checkpoint %s is damaged: training starts again from the beginning", file.name)
        return None
    with np.load(io.BytesIO(content[_DIGEST_BYTES:]), allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(arrays.pop("state").tobytes())
