"""A program that runs one method of an exporter of ``extend.exporters``, and answers on a pipe with a line of JSON."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Images that are answered together, and single ones whose time is taken.
_BATCH, _TIMED = 64, 50


def export(exporter: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Let it write its file."""
    exporter.export(Path(request["saved_model"]), Path(request["file"]))
    return {}


def predict(exporter: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Let it answer all test images: ``answers`` gets ``float32`` probabilities of shape ``(examples, classes)``."""
    images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
    model = exporter.load(Path(request["file"]))
    answers = np.empty((len(images), request["classes"]), np.float32)
    for start in range(0, len(images), _BATCH):
        batch = np.array(images[start : start + _BATCH])
        answers[start : start + _BATCH] = _answer(model, batch, request["classes"])
    seconds = []
    for image in images[:_TIMED]:
        began = time.perf_counter()
        _answer(model, np.array(image[None]), request["classes"])
        seconds.append(time.perf_counter() - began)
    np.save(request["answers"], answers, allow_pickle=False)
    return {f"latency_p{share}_ms": float(np.percentile(seconds, share)) * 1000 for share in (50, 99)}


def _answer(model: Callable[[np.ndarray], Any], batch: np.ndarray, classes: int) -> np.ndarray:
    given = np.asarray(model(batch))
    if given.shape != (len(batch), classes) or given.dtype.kind != "f":
        raise ValueError(f"expected floats of shape {(len(batch), classes)}, received {given.dtype} of {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("expected finite numbers, received NaN or infinity")
    return given


def main() -> None:
    """Answer the request on stdin."""
    request, answers = json.load(sys.stdin), os.fdopen(int(sys.argv[1]), "w")
    from layerflow import plugins
    from layerflow.errors import LayerflowError

    try:
        exporter = plugins.load("exporters", request["exporter"])
        with plugins.calling("exporters", request["exporter"]):
            answer = {"export": export, "predict": predict}[request["method"]](exporter(), request)
    except (LayerflowError, OSError) as error:
        answer = {"reason": str(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.close()


if __name__ == "__main__":
    main()
