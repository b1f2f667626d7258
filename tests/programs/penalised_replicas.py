"""Train `penalised` on two replicas, and with Keras' `fit` on one; fail where losses or weights differ."""

import keras
import numpy as np
import tensorflow as tf
from penalised import Penalised

from layerflow.training.engine import Engine

#: Six batches of 16, of which each replica takes half, and one of 5: a replica has 3 of them, the other 2.
EXAMPLES, BATCH, EPOCHS = 101, 16, 3

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
random = np.random.default_rng(3)
images, labels = random.integers(0, 256, (EXAMPLES, 6, 6, 1), np.uint8), random.integers(0, 4, EXAMPLES, np.int32)


def make(rate: float, scaled: bool) -> Penalised:
    keras.utils.set_random_seed(3)
    network = Penalised(4, rate)
    network.build((None, 6, 6, 1))
    network.optimizer = keras.optimizers.SGD(0.05, global_clipnorm=1.0)
    if scaled:
        network.optimizer = keras.optimizers.LossScaleOptimizer(network.optimizer)
    network.optimizer.build(network.trainable_variables)
    return network


def compare(scaled: bool) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        # A dropout of nothing still counts its calls, which makes one replica wait for the other in mid-call.
        network = make(1e-9, scaled)
    engine = Engine(network, network.optimizer, images, labels, BATCH, 1, xla=False, strategy=strategy)
    oracle = make(0.0, scaled)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    oracle.compile(oracle.optimizer, loss, jit_compile=False)
    for epoch in range(1, EPOCHS + 1):
        engine.start_epoch()
        while not engine.run_chunk(epoch):
            pass
        order = engine.windows.order(epoch)
        fitted = oracle.fit(images[order], labels[order], BATCH, shuffle=False, verbose=0).history["loss"][0]
        # Gradients of half batches are summed in another order: float32 rounding, over 21 steps.
        np.testing.assert_allclose(engine.loss, fitted, rtol=1e-5)
    for ours, theirs in zip(network.trainable_variables, oracle.trainable_variables, strict=True):
        for replica in ours.value.values:
            np.testing.assert_allclose(replica.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


for scaled in (False, True):
    compare(scaled)
