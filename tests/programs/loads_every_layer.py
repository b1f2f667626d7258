"""Every layer that was saved, in the folders below the one that is given, answers as when it was saved."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

for folder in sorted(Path(sys.argv[1]).iterdir()):
    golden = np.load(folder / "golden.npz")
    loaded = tf.saved_model.load(str(folder / "exported"))  # before our layers are known here
    np.testing.assert_allclose(loaded.serve(golden["inputs"]), golden["outputs"], rtol=1e-4, atol=1e-5)

import layers  # noqa: E402, F401

for folder in sorted(Path(sys.argv[1]).iterdir()):
    golden = np.load(folder / "golden.npz")
    model = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(model(golden["inputs"]), golden["outputs"], rtol=1e-4, atol=1e-5)
print("all the same")
