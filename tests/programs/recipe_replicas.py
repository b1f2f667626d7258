"""Two replicas have the losses and averages of one with a whole recipe, and each draws an augmentation of its own."""

import keras
import numpy as np
import tensorflow as tf

from layerflow.models.mlp import Mlp
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.augmentation import make_augmentation
from layerflow.training.engine import Engine
from layerflow.training.objective import make_objective
from layerflow.training.optimizers import make_optimizer

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

CLASSES = ("cat", "dog", "fox", "owl")
CONFIG = TrainingConfig(
    class_weight={"cat": 3.0, "owl": 0.2},
    loss={"class_name": "CategoricalFocalCrossentropy", "config": {"label_smoothing": 0.1}},
    ema=0.8,
    warmup_epochs=0.5,
    epochs=3,
    learning_rate=1e-2,
)
random = np.random.default_rng(3)
images, labels = random.integers(0, 256, (101, 6, 6, 1), np.uint8), random.integers(0, 4, 101, np.int32)


def train(strategy, augment=None):
    """Losses of three epochs, and the averaged weights."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        network = Mlp(hidden=(8,), classes=4)
        network.build((None, 6, 6, 1))
        optimizer = make_optimizer(CONFIG, 7)
        optimizer.build(network.trainable_variables)
    objective = make_objective(CONFIG, labels, CLASSES)
    engine = Engine(network, optimizer, images, labels, 16, 1, False, strategy, objective=objective, augment=augment)
    losses = []
    for epoch in (1, 2, 3):
        engine.start_epoch()
        while not engine.run_chunk(epoch):
            pass
        losses.append(engine.loss)
    optimizer.finalize_variable_values(network.trainable_variables)
    return losses, network.get_weights()


two, one = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), tf.distribute.get_strategy()
shared, alone = train(two), train(one)
# The gradients of half batches are summed in another order: float32 rounding, grown over 21 steps of Adam.
np.testing.assert_allclose(shared[0], alone[0], rtol=1e-4)
for ours, theirs in zip(shared[1], alone[1], strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-4)

changes = make_augmentation(AugmentConfig(layers=["RandomErasing", "MixUp"]), (6, 6, 1), 4, 0)
draw = tf.function(lambda: two.run(lambda: changes(tf.constant(images), tf.constant(labels), 5)))
(first, second), (shares, others) = (each.values for each in draw())
assert (first.numpy() != second.numpy()).any(), "replicas draw apart"
assert (shares.numpy() != others.numpy()).any()
assert train(two, changes)[0] == train(two, changes)[0]
