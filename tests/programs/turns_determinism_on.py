"""Determinism is switched on after random numbers were drawn without it."""

import pytest
import tensorflow as tf

from layerflow.devices import set_up
from layerflow.settings.devices import DevicesConfig

set_up(DevicesConfig())
tf.random.uniform([2])
set_up(DevicesConfig(deterministic=True))
with pytest.raises(RuntimeError, match="seed"):
    tf.random.uniform([2])
