"""An export in other formats, for other runtimes."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layerflow import store
from layerflow.checksums import sha256
from layerflow.converted import FILES, Converted
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ConfigError, ProcessKilledError
from layerflow.export.own_formats import file_of, write_format
from layerflow.export.process import libraries_environment, library_folders
from layerflow.records import DatasetRef, ExportRef

log = logging.getLogger(__name__)

_CONVERTER = Path(__file__).with_name("converter")
#: Validation images by which `litert_int8` is calibrated: enough to see how large each layer's numbers get.
_CALIBRATION = 200
#: Seconds in which all formats must be made, and letters of a reason that are kept.
_SECONDS, _LETTERS = 3600, 200
#: How a process ends that was killed, or found no memory or room: an error of Python, and two signals.
_KILLED = (1, -signal.SIGKILL, -signal.SIGTERM)


def convert(export: ExportRef, data: DatasetRef, formats: tuple[str, ...], folder: Path) -> Converted:
    """Write the export in each format, or note why the format can't be made.

    A file takes and gives what the signature ``serving_default`` of the SavedModel does.
    """
    own_files = {name: file_of(name) for name in formats if name not in FILES}
    if len({*own_files.values()}) < len(own_files):
        raise ConfigError(f"extend.exporters must each write a file of another name. Received: {own_files}")
    wanted = {name: folder / file_of(name) for name in formats}
    saved_model = store.path(export.saved_model)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch, "images.npy")
        if "litert_int8" in formats:
            np.save(images, calibration_images(data), allow_pickle=False)
        failed = convert_all(saved_model, {name: wanted[name] for name in formats if name in FILES}, images)
    failed |= {name: why for name in own_files if (why := write_format(name, saved_model, wanted[name])) is not None}
    for name, reason in failed.items():
        wanted[name].unlink(missing_ok=True)
        log.warning("the model can't be converted to %s: %s", name, reason)
    files = {name: sha256(file) for name, file in wanted.items() if name not in failed}
    written = {name: file for name, file in own_files.items() if name not in failed}
    return Converted(export_digest=export.digest, files=files, failed=failed, own_files=written)


def calibration_images(data: DatasetRef) -> np.ndarray:
    """Validation images, evenly spread over the split: ``uint8`` of shape ``(images, height, width, channels)``."""
    images = images_and_labels(data, "validation")[0]
    rows = np.unique(np.linspace(0, len(images) - 1, _CALIBRATION).astype(int))
    return np.asarray(images[rows])


def convert_all(saved_model: Path, files: Mapping[str, Path], images: Path) -> dict[str, str]:
    """Write a SavedModel in each format to its file; return why those that can't be made can't.

    Args:
        files: By format.
        images: A file of images to calibrate by, where there is ``litert_int8``.
    """
    waiting, failed = dict(files), dict[str, str]()
    while waiting:
        answers, ended = _run(
            {
                "saved_model": str(saved_model),
                "formats": {name: str(file) for name, file in waiting.items()},
                "images": str(images),
            }
        )
        for answer in answers:
            waiting.pop(answer["format"])
            if answer["reason"] is not None:
                failed[answer["format"]] = answer["reason"][:_LETTERS]
        if waiting:  # the next one has ended the process
            name = next(iter(waiting))
            waiting.pop(name)
            failed[name] = ended
    return failed


def _run(request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What one process of the converter answered, and how it ended.

    Raises:
        ProcessKilledError: If it was killed, or found no memory or no room: that says nothing about the model.
    """
    answers, writes = os.pipe()
    with os.fdopen(answers) as reader:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_CONVERTER), str(writes), *library_folders()],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                errors="replace",
                cwd=tempfile.gettempdir(),
                env={**libraries_environment(), "CUDA_VISIBLE_DEVICES": ""},
                pass_fds=[writes],
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            done = None
        finally:
            os.close(writes)
        found = [json.loads(line) for line in reader if line.endswith("\n")]
    if done is None:
        return found, f"the converter did not end within {_SECONDS:,} seconds"
    last = ([line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"])[-1][:_LETTERS]
    if done.returncode in _KILLED:
        raise ProcessKilledError(
            f"The converter must not be killed, and must have memory and room on the disk. It ended with status "
            f"{done.returncode}: {last}."
        )
    return found, f"the converter ended with status {done.returncode}: {last}"
