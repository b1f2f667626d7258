"""A saved network, in the folder that is given, answers as when it was saved."""

import sys

import keras
import numpy as np

import layerflow.models.networks  # noqa: F401 (makes the saved network loadable)

golden = np.load(sys.argv[1] + "/golden.npz")
network = keras.models.load_model(sys.argv[1] + "/model.keras")
np.testing.assert_allclose(network(golden["images"]), golden["logits"], rtol=1e-5, atol=1e-5)
