"""What TensorBoard is given, read back by TensorBoard's own reader."""

from pathlib import Path

import keras
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from layerflow import artifacts, store
from layerflow.models.build import build
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import tensorboard
from layerflow.training import train as training
from layerflow.training.tensorboard import RunLog, folder_of
from tests.shared import GRAPH

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    config = ModelConfig(hidden=(8,))
    return artifacts.make("build_model", "logged", ModelRef, lambda folder: build(config, digits, 0, folder))


def train(model: ModelRef, digits: DatasetRef, folder: Path, **settings: object) -> tuple[TrainedRef, Path]:
    """A training as the step does it, and where it was logged."""
    config = TrainingConfig.model_validate({"patience": 100, "batch_size": 256, **GRAPH, **settings})
    logged = folder_of(config, model, digits)
    folder.mkdir(exist_ok=True)
    return training.train(config, model, digits, folder, [RunLog(logged, digits.image_shape, config.epochs)]), logged


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"tensors": 0, HISTOGRAMS: 0}).Reload()


def scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}


def test_every_epoch_the_weights_and_the_graph_are_there(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    trained, logged = train(model, digits, tmp_path, epochs=24, seed=71)
    assert logged.parent == store.root() / "tensorboard" / "mlp-digits"
    train_events, validation_events = read(logged / "train"), read(logged / "validation")
    for epoch in trained.history:
        assert scalars(train_events, "loss")[epoch.epoch] == pytest.approx(epoch.loss)
        assert scalars(train_events, "accuracy")[epoch.epoch] == pytest.approx(epoch.accuracy)
        assert scalars(validation_events, "loss")[epoch.epoch] == pytest.approx(epoch.val_loss)
        assert scalars(validation_events, "accuracy")[epoch.epoch] == pytest.approx(epoch.val_accuracy)
    assert list(scalars(train_events, "learning_rate").values()) == [pytest.approx(1e-3)] * 24
    spread = [tag for tag in train_events.Tags()["tensors"] if tag not in ("loss", "accuracy", "learning_rate")]
    assert [tag.rpartition("/")[2] for tag in spread] == ["w", "b", "w", "b"]
    assert [event.step for event in train_events.Tensors(spread[0])] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert "MatMul" in {node.op for node in train_events.Graph().node} | {
        node.op for function in train_events.Graph().library.function for node in function.node_def
    }


@pytest.mark.drill
def test_a_continued_training_goes_on_in_its_folder(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    _, first = train(model, digits, tmp_path / "a", epochs=2, seed=72)
    _, second = train(model, digits, tmp_path / "b", epochs=3, seed=72)
    assert first == second
    assert [event.step for event in read(first / "train").Tensors("loss")] == [1, 2, 3]
    _, other = train(model, digits, tmp_path / "c", epochs=1, seed=73)
    assert other != first


def test_a_log_that_can_not_be_written_costs_the_log_alone(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.summary, "scalar", refuse)
    told: list[str] = []
    monkeypatch.setattr(tensorboard.log, "warning", lambda form, *values: told.append(form % values))
    trained, _ = train(model, digits, tmp_path, epochs=3, seed=74)
    assert trained.epochs == 3
    assert told == ["TensorBoard's log can't be written: No space left on device"]


def test_a_folder_that_can_not_be_made_costs_the_log_alone(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    config = TrainingConfig(epochs=2, batch_size=256, seed=76)
    refused = RunLog(tmp_path / "file" / "logs", digits.image_shape, config.epochs)
    assert training.train(config, model, digits, tmp_path, [refused]).epochs == 2


def test_keras_own_callback_for_tensorboard_works_too(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, batch_size=256, seed=75)
    own = keras.callbacks.TensorBoard(tmp_path / "logs", histogram_freq=1, write_graph=False)
    trained = training.train(config, model, digits, tmp_path, [own])
    losses = scalars(read(tmp_path / "logs" / "validation"), "epoch_loss")
    assert list(losses.values()) == [pytest.approx(epoch.val_loss) for epoch in trained.history]
