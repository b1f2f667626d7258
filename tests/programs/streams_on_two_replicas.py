"""Two replicas that stream end with the bits that they have with resident images."""

import keras
import numpy as np
import tensorflow as tf

from layerflow.models.mlp import Mlp
from layerflow.training import epoch_windows
from layerflow.training.engine import Engine

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


epoch_windows.WINDOW_BYTES = 3 * 16 * 36


def weights(streamed):
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        network = Mlp(hidden=(8,), classes=4)
        network.build((None, 6, 6, 1))
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(network.trainable_variables)
    images, labels = random.integers(0, 256, (101, 6, 6, 1), np.uint8), random.integers(0, 4, 101, np.int32)
    engine = Engine(network, optimizer, images, labels, 16, 1, xla=False, strategy=strategy, streamed=streamed)
    assert engine.windows.rows == (48 if streamed else 101)
    for epoch in (1, 2):
        engine.start_epoch()
        while not engine.run_chunk(epoch):
            pass
    return network.get_weights()


for one, other in zip(weights(True), weights(False), strict=True):
    np.testing.assert_array_equal(one, other)
