"""The formats of ``extend.exporters``: what writes and reads them is yours, so each runs in a process of its own."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from layerflow import plugins, store
from layerflow.converted import FILES
from layerflow.data.arrays import images_and_labels
from layerflow.data.slices import slices_of
from layerflow.errors import ConfigError, VerificationError, printed
from layerflow.export import own_program
from layerflow.export.process import libraries_environment
from layerflow.records import DatasetRef, Evaluation

#: A file of its own, beside those of other formats.
_FILE = r"[A-Za-z0-9][\w.-]{0,99}"
#: Seconds for writing a file, and for answering all test images by it.
_SECONDS = 3600
_LETTERS = 400
#: Images that are copied at a time.
_BATCH = 256


def file_of(name: str) -> str:
    """The file of a format, of layerflow's or your own.

    Raises:
        ConfigError: If your exporter can't be imported, or has no ``file`` that can stand beside the others.
    """
    if name in FILES:
        return FILES[name]
    file = getattr(plugins.load("exporters", name), "file", None)
    if not isinstance(file, str) or not re.fullmatch(_FILE, file) or file in FILES.values():
        raise ConfigError(
            f"extend.exporters {name} must have the name of its file as `file`, such as weights.npz, and none of "
            f"{', '.join(FILES.values())}. Received: {printed(repr(file))}"
        )
    return file


def write_format(name: str, saved_model: Path, file: Path) -> str | None:
    """Let an exporter write its file, in a process of its own; return why it can't, if so."""
    with tempfile.TemporaryDirectory() as scratch:  # a process that outlives this one writes nowhere else
        written = Path(scratch, file.name)
        answer = _run({"exporter": name, "method": "export", "saved_model": str(saved_model), "file": str(written)})
        if "reason" in answer:
            return str(answer["reason"])
        if written.is_symlink() or not written.is_file() or not written.stat().st_size:
            return f"extend.exporters {name} must write the file that it is given, and it has written none"
        shutil.copyfile(written, file)
    return None


def score_own_format(evaluation: Evaluation, data: DatasetRef, name: str, file: Path) -> dict[str, Any]:
    """What an exporter answers to all test images by its file, in a process that sees no label.

    Returns:
        What ``score_format`` does of a format of layerflow's.

    Raises:
        VerificationError: If it does not answer.
    """
    images, labels = images_and_labels(data, "test")
    with tempfile.TemporaryDirectory() as scratch:
        answers, copy = Path(scratch, "answers.npy"), Path(scratch, "model", file.name)
        copy.parent.mkdir()
        shutil.copyfile(file, copy)
        given_images = np.lib.format.open_memmap(Path(scratch, "images.npy"), "w+", np.uint8, images.shape)
        for start in range(0, len(images), _BATCH):
            given_images[start : start + _BATCH] = images[start : start + _BATCH]
        given_images.flush()
        request = {
            **{"exporter": name, "method": "predict", "file": str(copy), "classes": len(data.classes)},
            **{"images": str(Path(scratch, "images.npy")), "answers": str(answers)},
        }
        told = _run(request)
        if "reason" in told:
            raise VerificationError(str(told["reason"]))
        theirs = np.load(store.path(evaluation.predictions), allow_pickle=False)
        given = _answers(name, answers, theirs.shape)
    predicted, right = given.argmax(axis=-1), given.argmax(axis=-1) == labels
    right_there = theirs.argmax(axis=-1) == labels
    classes = len(data.classes)
    return {
        "runtime": f"`{name}`",
        "checks": {"test_split": f"all {len(labels):,} test images, in a process that sees no label"},
        "test_examples": len(labels),
        "test_accuracy": float(right.mean()),
        "only_this": int((right & ~right_there).sum()),
        "only_saved_model": int((~right & right_there).sum()),
        "max_difference": float(np.abs(given - theirs).max()),
        "class_right": np.bincount(labels[right], minlength=classes).tolist(),
        "class_predicted": np.bincount(predicted, minlength=classes).tolist(),
        "slice_right": slices_of(data).counts(right),
        **{key: float(told[key]) for key in ("latency_p50_ms", "latency_p99_ms")},
    }


def _answers(name: str, file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What the program wrote, in a folder that an exporter's code can write to as well."""
    with contextlib.suppress(OSError, ValueError):
        given: np.ndarray = np.load(file, allow_pickle=False)
        if given.shape == shape and given.dtype == np.float32 and np.isfinite(given).all():
            return given
    raise VerificationError(f"extend.exporters {name} must not write to the folder of its process, and has changed it")


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """What the program answers, or why it does not, as ``reason``."""
    answers, writes = os.pipe()
    paths = os.pathsep.join(each for each in sys.path if each)
    with os.fdopen(answers) as reader:
        try:
            done = subprocess.run(
                [sys.executable, "-P", own_program.__file__, str(writes)],  # not from the folder of the program
                input=json.dumps(request),
                capture_output=True,
                text=True,
                errors="replace",
                env={**libraries_environment(), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths},
                pass_fds=[writes],
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return {"reason": f"{request['exporter']} did not end within {_SECONDS:,} seconds"}
        finally:
            os.close(writes)
        line = reader.readline()
    if line.endswith("\n"):
        answer: dict[str, Any] = json.loads(line)
        return answer
    last = ([each.strip() for each in done.stderr.splitlines() if each.strip()] or ["no message"])[-1]
    return {"reason": f"{request['exporter']} ended its process with status {done.returncode}: {last[:_LETTERS]}"}
