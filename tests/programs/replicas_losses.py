"""Two replicas have the losses of one, with optimizers that look at the whole batch."""

import keras
import numpy as np
import tensorflow as tf

from layerflow.models.mlp import Mlp
from layerflow.training.engine import Engine

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


random = np.random.default_rng(3)
images, labels = random.integers(0, 256, (101, 6, 6, 1), np.uint8), random.integers(0, 4, 101, np.int32)
images[::2] //= 100


def losses(strategy, make):
    keras.utils.set_random_seed(3)
    with strategy.scope():
        network = Mlp(hidden=(8,), classes=4)
        network.build((None, 6, 6, 1))
        optimizer = make()
        optimizer.build(network.trainable_variables)
    engine = Engine(network, optimizer, images, labels, 16, 1, xla=False, strategy=strategy)
    for epoch in range(1, 6):
        engine.start_epoch()
        while not engine.run_chunk(epoch):
            pass
        yield engine.loss


Scaled, Adam, SGD = keras.optimizers.LossScaleOptimizer, keras.optimizers.Adam, keras.optimizers.SGD
for make in (
    lambda: Adam(1e-2),
    lambda: SGD(1.0, global_clipnorm=0.1),
    lambda: Scaled(Adam(1e-2), initial_scale=2.0**127),  # overflows at first
):
    two = list(losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), make))
    one = list(losses(tf.distribute.get_strategy(), make))
    # The gradients of half batches are summed in another order: float32 rounding, grown over 35 steps.
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one[-1] < one[0]
