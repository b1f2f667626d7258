"""Whether a client in JavaScript gets the classes that the SavedModel gives, for every test image of MNIST.

Usage: ``python benchmarks/node_client.py VERSION MODULES``: the folder of a version of MNIST that has ``model.onnx``,
and a folder in which ``npm install onnxruntime-node onnxruntime-web`` was run. ``LAYERFLOW_MIRROR`` names the folder of
the real files.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from layerflow.registry.layout import FORMATS

if __name__ == "__main__":
    version, modules = (Path(each).resolve() for each in sys.argv[1:])
    file = Path(os.environ["LAYERFLOW_MIRROR"], "mnist", "t10k-images-idx3-ubyte.gz")
    images = np.frombuffer(gzip.decompress(file.read_bytes())[16:], np.uint8).reshape(-1, 28, 28, 1)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    expected = signature(images=tf.constant(images))["class_id"].numpy()
    with tempfile.TemporaryDirectory() as scratch:
        raw, program = Path(scratch, "images"), Path(scratch, "classify.mjs")
        raw.write_bytes(images.tobytes())
        shutil.copy(Path(__file__).with_name("classify.mjs"), program)
        Path(scratch, "node_modules").symlink_to(modules / "node_modules")
        for package in ("onnxruntime-node", "onnxruntime-web"):
            begun = time.monotonic()
            command = ["node", program, package, version / FORMATS / "model.onnx", raw, *map(str, images.shape[1:])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            received = np.array(done.stdout.split(), np.int64)
            same = int((received == expected).sum())
            seconds = time.monotonic() - begun
            print(f"{package}: {same:,} of {len(expected):,} images have the same class, {seconds:.1f} s")
