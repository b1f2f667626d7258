"""A saved network of this name, in the folder that is given, answers as when it was saved."""

import sys
from pathlib import Path

import numpy as np

from layerflow.models.networks import load_model

name, folder = sys.argv[1], Path(sys.argv[2])
golden = np.load(folder / "golden.npz")
network = load_model(name, folder / "model.keras")
np.testing.assert_allclose(network(golden["images"]), golden["logits"], rtol=1e-5, atol=1e-5)
