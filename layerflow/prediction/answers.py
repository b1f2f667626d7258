"""Answers of an exported model to image files, many at a time."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from layerflow.checksums import EXTRA
from layerflow.data.threads import in_threads
from layerflow.errors import UserError, printed
from layerflow.json_file import read_json

#: Files in a batch, and the largest file that is read. A batch that holds a broken file is asked again file by file.
_BATCH, _MOST_BYTES = 32, 2**28
#: How the files begin that the graph decodes. Others are asked about one by one, as the graph refuses them.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
#: What the graph says of a file that it refuses: where the file is in the batch, and why.
_REFUSED = re.compile(r"\[image_bytes\] \[\d+\] \[(.*?)\]$", re.MULTILINE)

#: How lines of TensorFlow's errors begin that say nothing of the file.
_HEADINGS = ("Graph execution error", "Detected at node", "<stack traces")


class Answer(NamedTuple):
    """What the model says of a file: a probability for each class, or why there is no answer."""

    path: str
    probabilities: np.ndarray | None
    accepted: bool | None = None
    error: str = ""


def contract_of(model: Path) -> dict[str, Any]:
    """What an exported model says of itself.

    Raises:
        UserError: If it has no signature ``image_bytes``.
    """
    contract = read_json(model / EXTRA / "contract.json")
    if "image_bytes" not in contract:
        raise UserError(
            f"The model must have the signature image_bytes. {model} has none, as an earlier layerflow exported "
            "it; run layerflow retrain --refresh."
        )
    return dict(contract)


class Predictor:
    """A published model, asked by its signature ``image_bytes`` and nothing else of it, once it is loaded.

    Args:
        model: The folder of the SavedModel.

    Raises:
        UserError: If it has no such signature.
    """

    def __init__(self, model: Path) -> None:
        contract_of(model)
        self.model = model

    def load(self) -> None:
        """Load the model, and let TensorFlow prepare for the first answer."""
        self._loaded = tf.saved_model.load(str(self.model))
        self._ask = self._loaded.signatures["image_bytes"]
        self._ask(image_bytes=tf.io.encode_png(tf.zeros((1, 1, 1), tf.uint8))[None])

    def answers(self, paths: Iterable[str]) -> Iterator[Answer]:
        """An answer for each path, in their order; batches are read and decoded in threads."""
        for part, answers in in_threads(self._answer, _batches(paths), 1):
            assert len(part) == 1
            yield from answers[0]

    def _answer(self, paths: list[str]) -> list[Answer]:
        contents: list[Any] = [_content(path) for path in paths]
        rows = [row for row, content in enumerate(contents) if isinstance(content, bytes)]
        answers = [Answer(path, None, error=str(content)) for path, content in zip(paths, contents, strict=True)]
        together = [row for row in rows if contents[row].startswith(_BEGINNINGS)]
        for asked in (together, *([row] for row in rows if row not in together)):
            for row, answer in zip(asked, self._answer_all([contents[row] for row in asked]), strict=True):
                answers[row] = answer._replace(path=paths[row])
        return answers

    def _answer_all(self, files: list[Any]) -> list[Answer]:
        if not files:
            return []
        try:
            found = self._ask(image_bytes=tf.constant(files))
        except tf.errors.OpError as error:
            if len(files) == 1:
                return [Answer("", None, error=reason_of(error))]
            return [answer for file in files for answer in self._answer_all([file])]
        accepted = found["accepted"].numpy().tolist() if "accepted" in found else [None] * len(files)
        return [Answer("", *pair) for pair in zip(found["probabilities"].numpy(), accepted, strict=True)]


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    batch = list[str]()
    for path in paths:
        batch.append(path)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _content(path: str) -> bytes | str:
    """The bytes of a file, or why it can't be read. Nothing but a regular file is opened: a pipe would never end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # a null character
        return (getattr(error, "strerror", None) or str(error)).lower()
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            return "no regular file"
        content = opened.read(_MOST_BYTES + 1)
    return content if len(content) <= _MOST_BYTES else f"larger than {_MOST_BYTES // 2**20} MiB"


def reason_of(error: tf.errors.OpError) -> str:
    """What the graph or TensorFlow says of a file, in one line."""
    if found := _REFUSED.search(error.message):
        return found[1].replace("\\'", "'")
    # Its other lines are headings, and tell where in the graph it failed.
    lines = [re.sub(r"\{\{.*?\}\}|\[\[.*", "", line).strip() for line in error.message.splitlines()]
    told = [line for line in lines if line and not line.startswith(_HEADINGS)]
    return printed(told[0] if told else "can't be decoded", 200)
