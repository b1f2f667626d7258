"""A SavedModel in another format: a program, because converters print much, and a graph that they can't take may end
their process.

Usage: ``python -I -S layerflow/export/converter DESCRIPTOR FOLDER...``, with the folders of the libraries as the only
places to import from. It reads one JSON object from stdin: the folder of the ``saved_model``, the file to write for
each of the ``formats``, and for ``litert_int8`` ``images``, a file of images to calibrate by. For each format
it writes one JSON object, a line, to the descriptor: ``{"format": name, "reason": why it can't be made, or null}``.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)] + sys.argv[2:]
    sys.modules["keras"] = None  # type: ignore[assignment] # takes half of the time of importing TensorFlow

import numpy as np
import tensorflow as tf

#: Of ONNX's operations: the newest that the converter writes.
_OPSET = 18
_PR_SET_PDEATHSIG = 1


def to_litert(request: dict[str, Any], is_int8: bool) -> bytes:
    """The signature ``serving_default`` for LiteRT, in float32 or in integers of 8 bits."""
    converter = tf.lite.TFLiteConverter.from_saved_model(request["saved_model"], signature_keys=["serving_default"])
    if is_int8:
        images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ({"images": image[None]} for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def to_onnx(request: dict[str, Any]) -> bytes:
    """The signature ``serving_default`` for ONNX Runtime."""
    import tf2onnx

    loaded = tf.saved_model.load(request["saved_model"])
    served = loaded.signatures["serving_default"]
    images = served.structured_input_signature[1]["images"]
    function = tf.function(lambda images: served(images=images), input_signature=[images])
    model, _ = tf2onnx.convert.from_function(function, input_signature=[images], opset=_OPSET)
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = "batch"
    return bytes(model.SerializeToString(deterministic=True))


def convert(request: dict[str, Any], name: str) -> str | None:
    """Write one format; return why it can't be made, or nothing. Without memory or room on the disk, it is raised."""
    try:
        content = to_onnx(request) if name == "onnx" else to_litert(request, name == "litert_int8")
        Path(request["formats"][name]).write_bytes(content)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return None


def end_with_parent() -> None:
    """Have Linux end this process when its parent is gone: it would write into a folder that a new run uses."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    end_with_parent()
    request = json.load(sys.stdin)
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        for name in request["formats"]:
            answers.write(json.dumps({"format": name, "reason": convert(request, name)}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
