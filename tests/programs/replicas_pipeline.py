"""The whole pipeline on two replicas, interrupted. Usage: ``… DATA MODEL``, as JSON."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from layerflow import artifacts, devices
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model, verification
from layerflow.records import DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef
from layerflow.settings.training import TrainingConfig
from layerflow.training import fingerprint
from layerflow.training import train as training

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


data, model = DatasetRef.model_validate_json(sys.argv[1]), ModelRef.model_validate_json(sys.argv[2])


def train(epochs, seed):
    config = TrainingConfig(epochs=epochs, seed=seed, compile="graph")
    return training.train(config, model, data, Path(tempfile.mkdtemp()))


one = train(4, 11)
devices.strategy = lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
config = TrainingConfig(epochs=4, seed=11, compile="graph", checkpoint_seconds=61)  # saved apart from the first
fingerprint._NOT_THE_TRAINING = {"epochs", "patience"}


def mirrored(epochs, key):
    shorter = config.model_copy(update={"epochs": epochs})
    return artifacts.make("train_model", key, TrainedRef, lambda folder: training.train(shorter, model, data, folder))


assert mirrored(2, "two-replicas-begun").replicas == 2
two = mirrored(4, "two-replicas")
assert [epoch.epoch for epoch in two.history] == [1, 2, 3, 4]
# Float32 sums in another order, grown over 180 steps of Adam.
np.testing.assert_allclose([e.loss for e in two.history], [e.loss for e in one.history], rtol=1e-3)
scored = artifacts.make("evaluate_model", "two", Evaluation, lambda folder: evaluate(two, data, folder))
exported = artifacts.make("export_model", "two", ExportRef, lambda folder: saved_model.export(two, data, folder))
assert verification.verify(exported, scored, data).test_accuracy == scored.accuracy > 0.8
