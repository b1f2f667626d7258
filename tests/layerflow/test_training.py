"""Training: against a plain loop, across interruptions, and when it goes wrong."""

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import building, checkpoint, store, training
from layerflow.config import ModelConfig, TrainingConfig
from layerflow.errors import NonFiniteLossError
from layerflow.models import Mlp
from layerflow.records import DatasetRef, ModelRef, TrainedRef


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    return store.make(
        "build_model", "of-the-tests", ModelRef, lambda folder: building.build(ModelConfig(), digits, 0, folder)
    )


def train(model: ModelRef, digits: DatasetRef, folder: Path, **settings: object) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    return training.train(TrainingConfig(**settings), model, digits, folder)


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


def small_problem(examples: int) -> tuple[Mlp, tf.Tensor, tf.Tensor]:
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    network = Mlp(hidden=(8,), classes=4)
    network.build((None, 6, 6, 1))
    images = tf.constant(random.integers(0, 256, (examples, 6, 6, 1), np.uint8))
    return network, images, tf.constant(random.integers(0, 4, examples, np.int32))


@pytest.mark.parametrize("examples", [32, 37, 5])
def test_an_epoch_equals_keras_train_on_batch_over_the_same_batches(examples: int) -> None:
    network, images, labels = small_problem(examples)
    oracle = keras.models.clone_model(network)
    oracle.set_weights(network.get_weights())
    oracle.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(network.trainable_variables)
    run = training.compile_epoch(network, optimizer, images, labels, batch_size=8, seed=5)
    for epoch in (1, 2):
        steps = -(-examples // 8)
        loss, _, _ = run(epoch, 0, steps)
        keys = tf.random.stateless_uniform([examples], [5, epoch], None, None, tf.int32, alg="philox")
        order = np.argsort(keys.numpy(), kind="stable")
        assert sorted(order) == list(range(examples)), "every example exactly once"
        expected = 0.0
        for step in range(steps):
            batch = order[step * 8 : (step + 1) * 8]
            oracle.reset_metrics()
            expected += len(batch) * float(oracle.train_on_batch(images.numpy()[batch], labels.numpy()[batch]))
        # Float32 sums in another order, over at most ten steps of Adam.
        assert loss == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(network.get_weights(), oracle.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def losses(seed: int, epoch: int) -> float:
        network, images, labels = small_problem(40)
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(network.trainable_variables)
        return training.compile_epoch(network, optimizer, images, labels, 8, seed)(epoch, 0, 5)[0]

    assert losses(1, 1) == losses(1, 1)
    assert losses(1, 1) != losses(1, 2)
    assert losses(1, 1) != losses(2, 1)


class KilledError(Exception):
    """Stands for a process that dies."""


def test_interrupted_and_resumed_training_is_bit_identical_to_uninterrupted(
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = train(model, digits, tmp_path / "whole", epochs=6)
    saves = 0

    def die_at_third(file: Path, arrays: dict, state: dict) -> None:
        nonlocal saves
        saves += 1
        if saves in (3, 5):
            raise KilledError
        original(file, arrays, state)

    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", die_at_third)
    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    caplog.set_level(logging.INFO, logger="layerflow")
    for _ in range(2):
        with pytest.raises(KilledError):
            train(model, digits, tmp_path / "broken", epochs=6)
    resumed = train(model, digits, tmp_path / "broken", epochs=6)
    assert "resuming after epoch 2 of 6" in caplog.text
    assert "resuming after epoch 3 of 6" in caplog.text
    for ours, theirs in zip(weights(tmp_path / "broken"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    without_seconds = {"seconds"}
    assert [epoch.model_dump(exclude=without_seconds) for epoch in resumed.history] == [
        epoch.model_dump(exclude=without_seconds) for epoch in whole.history
    ]
    assert resumed.steps == whole.steps


def test_a_damaged_checkpoint_is_not_used(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    checkpoint.save(file, {"a": np.arange(3)}, {"epoch": 1})
    arrays, state = checkpoint.restore(file) or ({}, {})
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert state == {"epoch": 1}
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    assert checkpoint.restore(file) is None


def test_the_best_epochs_weights_are_kept_and_training_stops_early(
    model: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    # This learning rate overshoots: the best epoch is long before the last.
    made = train(model, digits, tmp_path, epochs=40, patience=2, learning_rate=0.1)
    assert made.epochs == made.best_epoch + 2 < 40
    best = min(made.history, key=lambda epoch: epoch.val_loss)
    assert best.epoch == made.best_epoch
    images, labels = training.images_and_labels(digits, "validation")
    logits = keras.models.load_model(tmp_path / "model.keras")(np.array(images)).numpy()
    assert training.cross_entropy(logits, labels) == pytest.approx(best.val_loss, rel=1e-5)


def test_a_loss_that_is_no_number_stops_at_once_and_says_where(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.optimizers.Adam, "learning_rate", float("inf"), raising=False)
    with pytest.raises(NonFiniteLossError, match=r"not after step \d+ of epoch 1; lower training.learning_rate"):
        train(model, digits, tmp_path, learning_rate=10.0)
    assert not (tmp_path / "model.keras").exists()


def test_history_counts_every_example_and_names_its_figures(
    model: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    made = train(model, digits, tmp_path, epochs=2, batch_size=100)
    assert made.steps == 2 * -(-digits.counts["train"] // 100)
    assert [epoch.epoch for epoch in made.history] == [1, 2]
    first = made.history[0].model_dump()
    assert set(first) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    # Accuracies are whole numbers of examples: nothing was dropped and nothing counted twice.
    assert (first["accuracy"] * digits.counts["train"]) == pytest.approx(
        round(first["accuracy"] * digits.counts["train"]), abs=1e-3
    )
