"""Two replicas go on with the mean of their moving averages."""

import keras
import numpy as np
import tensorflow as tf

from layerflow.training.engine import Engine
from layers import BatchNormalization, Dense

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.ours, self.keras = BatchNormalization(momentum=0.5), keras.layers.BatchNormalization(momentum=0.5)
        self.logits = Dense(4)

    def build(self, shape):
        for layer in (self.ours, self.keras, self.logits):
            layer.build((None, 3))

    def call(self, images, training=False):
        x = keras.ops.cast(images[:, 0, :, 0], "float32")
        return self.logits(self.ours(x, training=training) + self.keras(x, training=training))


images = np.random.default_rng(0).integers(0, 256, (10, 1, 3, 1), np.uint8)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    network = Net()
    network.build((None, 1, 3, 1))
    optimizer = keras.optimizers.SGD()
    optimizer.build(network.trainable_variables)
engine = Engine(network, optimizer, images, np.zeros(10, np.int32), 4, 1, xla=False, strategy=strategy)
assert engine.run_chunk(1)
mean, variance = np.zeros(3), np.ones(3)
for start in range(0, 10, 4):
    batch = images[engine.windows.order(1)[start : start + 4], 0, :, 0].astype(float)
    shares = batch[::2], batch[1::2]
    mean = 0.5 * mean + 0.5 * np.mean([share.mean(0) for share in shares], 0)
    variance = 0.5 * variance + 0.5 * np.mean([share.var(0) for share in shares], 0)
for layer in (network.ours, network.keras):
    for each in layer.moving_mean.value.values:
        np.testing.assert_allclose(each, mean, rtol=1e-5)
    for each in layer.moving_variance.value.values:
        np.testing.assert_allclose(each, variance, rtol=1e-5)
