"""What a training needs to go on as if it had never stopped, in two slots of which one is always whole."""

import hashlib
import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from layerflow import store

log = logging.getLogger(__name__)
_SLOTS = ("a.ckpt", "b.ckpt")
_DIGEST_BYTES = 32


class Checkpoint:
    """The checkpoint in ``folder``. Each slot is one file, replaced atomically and headed by its SHA-256.

    Attributes:
        found: The arrays and the state that were there, the newest that is whole, or nothing.
        age: How many were saved so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        slots = [(_read(folder / name), folder / name) for name in _SLOTS]
        # The newer one last; an empty or damaged one before both, to be written first.
        slots.sort(key=lambda slot: slot[0][1]["age"] if slot[0] else -1)
        self.found = slots[-1][0]
        self.age = self.found[1]["age"] if self.found else 0
        self._files = [file for _, file in slots]

    def discard(self) -> None:
        """Remove it: the training that it is of begins anew."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def save(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Write into the older slot; the newer stays as it is until this one is whole and on the disk.

        Args:
            arrays: Arrays by name.
            state: What JSON can hold.
        """
        self.age += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        text = json.dumps({**state, "age": self.age})
        content: dict[str, Any] = {**arrays, "state": np.frombuffer(text.encode(), np.uint8)}
        np.savez(buffer, **content)
        archive = buffer.getvalue()
        store.write_atomically(self._files[0], hashlib.sha256(archive).digest(), archive)
        self._files.reverse()


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    if not file.exists():
        return None
    content = memoryview(file.read_bytes())
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        log.warning("checkpoint %s is damaged and is not used", file)
        return None
    with np.load(io.BytesIO(content[_DIGEST_BYTES:]), allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(arrays.pop("state").tobytes())


def checkpoint_of(fingerprint: str, epochs: int) -> Checkpoint:
    """The checkpoint that a training of at most ``epochs`` resumes from and saves to.

    Where a longer training is there, it stays as it is: its later epochs can't be undone, and may have taken days. The
    shorter one then has a checkpoint of its own.
    """
    folder = store.root() / "checkpoints" / fingerprint
    checkpoint, shorter = Checkpoint(folder), Checkpoint(folder.with_name(f"{fingerprint}-{epochs}-epochs"))
    if shorter.found or (checkpoint.found and len(checkpoint.found[1]["history"]) > epochs):
        return shorter
    return checkpoint
