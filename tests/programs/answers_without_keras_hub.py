"""An exported model, in the folder that is given, answers where neither KerasHub nor Keras can be imported."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

for name in ("keras_hub", "keras", "layerflow", "layers"):
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]
    sys.modules[name] = None  # what the import system takes for a module that is not there

signature = tf.saved_model.load(Path(sys.argv[1])).signatures["serving_default"]
images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
probabilities = signature(images=tf.constant(images))["probabilities"].numpy()
np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
