"""Training: against a plain loop, across interruptions, and when it goes wrong."""

import logging
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import artifacts, devices, store
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ConfigError, NonFiniteLossError
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model
from layerflow.export.verifier.graph import check_graph
from layerflow.models import predict
from layerflow.models.build import build
from layerflow.models.mlp import Mlp
from layerflow.models.predict import cross_entropy, uses_xla
from layerflow.records import DatasetRef, Epoch, Evaluation, ExportRef, ModelRef, TrainedRef
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import OPTIMIZERS, SCHEDULES, TrainingConfig
from layerflow.training import engine as engine_module
from layerflow.training import session, step
from layerflow.training import train as training
from layerflow.training.checkpoint import Checkpoint
from layerflow.training.engine import Engine
from layerflow.training.fingerprint import fingerprint_of
from layerflow.training.progress import Progress
from tests import forked
from tests.shared import GRAPH

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    return artifacts.make(
        "build_model", "of-the-tests", ModelRef, lambda folder: build(ModelConfig(), digits, 0, folder)
    )


@pytest.fixture(scope="module")
def dropping(digits: DatasetRef) -> ModelRef:
    """The same network, with dropout."""
    config = ModelConfig(hidden=(32, 16), dropout=0.3)
    return artifacts.make("build_model", "dropping", ModelRef, lambda folder: build(config, digits, 0, folder))


def train(model: ModelRef, digits: DatasetRef, folder: Path, **settings: object) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    return training.train(TrainingConfig(**GRAPH | settings), model, digits, folder)


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


def small_problem(examples: int) -> tuple[Mlp, tf.Tensor, tf.Tensor]:
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    network = Mlp(hidden=(8,), classes=4)
    network.build((None, 6, 6, 1))
    images = tf.constant(random.integers(0, 256, (examples, 6, 6, 1), np.uint8))
    return network, images, tf.constant(random.integers(0, 4, examples, np.int32))


def run_epoch(engine: Engine, epoch: int) -> float:
    """Run one epoch to its end and return its mean loss."""
    engine.start_epoch()
    while not engine.run_chunk(epoch):
        pass
    return engine.loss


@pytest.mark.parametrize("xla", [True, False])
@pytest.mark.parametrize("examples", [32, 37, 5])
def test_an_epoch_equals_keras_train_on_batch_over_the_same_batches(examples: int, xla: bool) -> None:
    network, images, labels = small_problem(examples)
    oracle = keras.models.clone_model(network)
    oracle.set_weights(network.get_weights())
    oracle.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    engine = Engine(network, built_adam(network), images, labels, batch_size=8, seed=5, xla=xla)
    for epoch in (1, 2):
        loss = run_epoch(engine, epoch)
        order = engine.windows.order(epoch)
        assert sorted(order) == list(range(examples)), "every example exactly once"
        expected = 0.0
        for start in range(0, examples, 8):
            batch = order[start : start + 8]
            oracle.reset_metrics()
            expected += len(batch) * float(oracle.train_on_batch(images.numpy()[batch], labels.numpy()[batch]))
        # Float32 sums in another order, over at most ten steps of Adam.
        assert loss == pytest.approx(expected / examples, rel=1e-5)
    for ours, theirs in zip(network.get_weights(), oracle.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def loss(seed: int, epoch: int) -> float:
        network, images, labels = small_problem(40)
        return run_epoch(Engine(network, built_adam(network, 1e-2), images, labels, 8, seed), epoch)

    assert loss(1, 1) == loss(1, 1)
    assert loss(1, 1) != loss(1, 2)
    assert loss(1, 1) != loss(2, 1)


def test_where_an_epoch_is_cut_into_calls_changes_no_bit() -> None:
    def train(chunk: int) -> list[np.ndarray]:
        network, images, labels = small_problem(100)
        engine = Engine(network, built_adam(network), images, labels, 7, seed=1)
        for epoch in (1, 2):
            engine.start_epoch()
            engine._chunk = chunk
            while not engine.run_chunk(epoch):
                engine._chunk = chunk
        return [*network.get_weights(), np.array(engine.loss), np.array(engine.accuracy)]

    for one, many in zip(train(100), train(3), strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.process
def test_two_replicas_have_the_loss_curve_of_one() -> None:
    """With any optimizer: what is clipped, and looked at for overflows, is the gradient of the whole batch."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "replicas_losses.py"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_several_replicas_accumulate_no_gradients() -> None:
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    with pytest.raises(ConfigError, match=r"gradient_accumulation_steps=2; take a larger training.batch_size"):
        step._let_sum_be(optimizer)


@pytest.mark.drill
@pytest.mark.process
def test_the_whole_pipeline_on_two_replicas_resumes_and_ends_as_on_one(digits: DatasetRef, model: ModelRef) -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    arguments = [digits.model_dump_json(), model.model_dump_json()]
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "replicas_pipeline.py", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.process
def test_two_replicas_go_on_with_the_mean_of_their_moving_averages() -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "replicas_averages.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.process
def test_no_two_layers_or_replicas_draw_the_same_mask_though_their_seeds_are_neighbours() -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "replicas_masks.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def built_adam(network: Mlp, learning_rate: float = 1e-3) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(network.trainable_variables)
    return optimizer


@pytest.fixture
def clean(session_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint of an earlier test; and each epoch ends with one, however short it is."""
    monkeypatch.setattr(session, "_SAVING_SHARE", 1e6)
    shutil.rmtree(session_store / "checkpoints", ignore_errors=True)


def without_seconds(made: TrainedRef) -> list[dict[str, object]]:
    return [epoch.model_dump(exclude={"seconds"}) for epoch in made.history]


def assert_same_training(ours: tuple[TrainedRef, Path], theirs: tuple[TrainedRef, Path]) -> None:
    for mine, reference in zip(weights(ours[1]), weights(theirs[1]), strict=True):
        np.testing.assert_array_equal(mine, reference)
    assert without_seconds(ours[0]) == without_seconds(theirs[0])
    assert (ours[0].steps, ours[0].best_epoch) == (theirs[0].steps, theirs[0].best_epoch)


@pytest.mark.parametrize(
    ("moment", "compiled"),
    [
        pytest.param("before the write", "xla", marks=pytest.mark.drill),
        ("after the write", "graph"),
        ("in mid-epoch", "xla"),
        pytest.param("in mid-epoch", "graph", marks=pytest.mark.drill),
    ],
)
def test_interrupted_twice_and_resumed_is_bit_identical_to_uninterrupted(
    clean: None,
    dropping: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    session_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    compiled: str,
) -> None:
    settings = {"epochs": 3, "batch_size": 80, "checkpoint_seconds": 1e-6, "compile": compiled}  # of 18 steps each
    monkeypatch.setattr(engine_module, "CHUNK_SECONDS", 0.0)  # chunks of one step after the first
    monkeypatch.setattr(engine_module, "_FIRST_CHUNK", 1)
    whole = train(dropping, digits, tmp_path / "whole", **settings)
    shutil.rmtree(session_store / "checkpoints")
    saves = 0
    original = Checkpoint.save

    def die(self: Checkpoint, arrays: dict, state: dict) -> None:
        nonlocal saves
        saves += 1
        dying = saves in ((8, 27) if moment == "in mid-epoch" else (3, 22))
        if dying and moment == "before the write":
            raise SystemExit
        original(self, arrays, state)
        if dying:
            raise SystemExit

    monkeypatch.setattr(Checkpoint, "save", die)
    for _ in range(2):
        with pytest.raises(SystemExit):
            train(dropping, digits, tmp_path / "broken", **settings)
    resumed = train(dropping, digits, tmp_path / "broken", **settings)
    assert_same_training((resumed, tmp_path / "broken"), (whole, tmp_path / "whole"))


def test_a_cancellation_saves_where_it_stopped_and_says_where_it_goes_on(
    clean: None,
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    original = Engine.run_chunk

    def cancelled(self: Engine, epoch: int) -> bool:
        if epoch == 3 and int(self.position):
            raise KeyboardInterrupt
        self._chunk = 10
        return original(self, epoch)

    monkeypatch.setattr(Engine, "run_chunk", cancelled)
    with pytest.raises(KeyboardInterrupt):
        train(model, digits, tmp_path, epochs=4)
    monkeypatch.setattr(Engine, "run_chunk", original)
    caplog.set_level(logging.INFO, logger="layerflow")
    positions = []
    monkeypatch.setattr(Engine, "warm_up", lambda self: positions.append(int(self.position)))
    train(model, digits, tmp_path, epochs=4)
    assert "resuming at epoch 3 of 4" in caplog.text
    assert positions == [10]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_a_best_epoch_that_is_no_number_is_beaten_by_any_that_is(monitor: str) -> None:
    def epoch(number: int, figure: float) -> Epoch:
        return Epoch(epoch=number, loss=1, accuracy=1, val_loss=figure, val_accuracy=figure, seconds=1)

    for bad in (float("nan"), float("inf")):
        progress = Progress([epoch(1, bad)], best_epoch=1)
        assert progress.is_better(epoch(2, 0.5), monitor)
        assert not progress.is_better(epoch(2, bad), monitor)
    assert not Progress([epoch(1, 0.5)], best_epoch=1).is_better(epoch(2, float("nan")), monitor)


def test_the_seconds_of_a_resumed_epoch_are_those_of_all_its_processes(
    clean: None,
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    session_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Engine.run_chunk

    def cancelled(self: Engine, epoch: int) -> bool:
        if epoch == 2 and int(self.position):
            raise KeyboardInterrupt
        self._chunk = 10
        return original(self, epoch)

    monkeypatch.setattr(Engine, "run_chunk", cancelled)
    with pytest.raises(KeyboardInterrupt):
        train(model, digits, tmp_path, epochs=3)
    monkeypatch.setattr(Engine, "run_chunk", original)
    (folder,) = (session_store / "checkpoints").iterdir()
    checkpoint = Checkpoint(folder)
    assert checkpoint.found
    arrays, state = checkpoint.found
    assert state["seconds"] > 0
    checkpoint.save(arrays, state | {"seconds": 1000.0})
    first, resumed, last = (epoch.seconds for epoch in train(model, digits, tmp_path, epochs=3).history)
    assert max(first, last) < 1000 <= resumed


def test_a_cancellation_after_an_epochs_last_step_resumes_at_its_validation(
    clean: None,
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    session_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(model, digits, tmp_path / "whole", epochs=3)
    shutil.rmtree(session_store / "checkpoints")
    original = Engine.run_chunk

    def cancelled(self: Engine, epoch: int) -> bool:
        over = original(self, epoch)
        if over and epoch == 2:
            raise KeyboardInterrupt  # where Python hears a signal that came during the epoch's compiled function
        return over

    monkeypatch.setattr(Engine, "run_chunk", cancelled)
    with pytest.raises(KeyboardInterrupt):
        train(model, digits, tmp_path / "resumed", epochs=3)
    monkeypatch.setattr(Engine, "run_chunk", original)
    resumed = train(model, digits, tmp_path / "resumed", epochs=3)
    assert_same_training((resumed, tmp_path / "resumed"), (whole, tmp_path / "whole"))


def test_more_epochs_continue_and_equal_the_longer_training(
    clean: None, model: ModelRef, digits: DatasetRef, tmp_path: Path, session_store: Path
) -> None:
    longer = train(model, digits, tmp_path / "longer", epochs=6)
    shutil.rmtree(session_store / "checkpoints")
    train(model, digits, tmp_path / "extended", epochs=3)
    extended = train(model, digits, tmp_path / "extended", epochs=6)
    assert_same_training((extended, tmp_path / "extended"), (longer, tmp_path / "longer"))


def test_fewer_epochs_leave_a_longer_training_where_it_was(
    clean: None,
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    session_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="layerflow")
    fresh = train(model, digits, tmp_path / "fresh", epochs=3)
    shutil.rmtree(session_store / "checkpoints")
    train(model, digits, tmp_path / "longer", epochs=6)
    (folder,) = (session_store / "checkpoints").iterdir()
    slots = {file: file.read_bytes() for file in folder.iterdir()}
    original = Engine.run_chunk

    def cancelled(self: Engine, epoch: int) -> bool:
        if epoch == 3:
            raise KeyboardInterrupt
        return original(self, epoch)

    monkeypatch.setattr(Engine, "run_chunk", cancelled)
    with pytest.raises(KeyboardInterrupt):
        train(model, digits, tmp_path / "shorter", epochs=3)
    monkeypatch.setattr(Engine, "run_chunk", original)
    shorter = train(model, digits, tmp_path / "shorter", epochs=3)
    assert "resuming at epoch 3 of 3" in caplog.text, "the shorter one has a checkpoint too"
    assert_same_training((shorter, tmp_path / "shorter"), (fresh, tmp_path / "fresh"))
    assert {file: file.read_bytes() for file in slots} == slots
    assert train(model, digits, tmp_path / "longer", epochs=7).epochs == 7
    assert "resuming at epoch 7 of 7" in caplog.text


def test_going_on_with_other_threads_is_said_and_recorded(
    clean: None,
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(devices, "threads_in_use", lambda: 2)  # machines of other sizes are not at hand
    made = train(model, digits, tmp_path, epochs=2)
    assert (made.threads, made.threads_before) == (2, ())
    monkeypatch.setattr(devices, "threads_in_use", lambda: 64)
    made = train(model, digits, tmp_path, epochs=2)
    assert (made.threads, made.threads_before) == (2, ()), "nothing was left to be trained"
    assert "CPU threads" not in caplog.text
    made = train(model, digits, tmp_path, epochs=3)
    assert "resuming with 64 CPU threads a training that had 2: the last bits of the model will not be" in caplog.text
    assert (made.threads, made.threads_before) == (64, (2,))


@pytest.mark.parametrize("machine", [{"threads": 3}, {"deterministic": True}], ids=str)
def test_what_changes_bits_is_another_training_and_a_memory_limit_is_none(
    model: ModelRef, digits: DatasetRef, machine: dict[str, object]
) -> None:
    def fingerprint(**settings: object) -> str:
        return fingerprint_of(TrainingConfig(), model, digits, DevicesConfig(**settings))

    assert fingerprint(**machine) != fingerprint() == fingerprint(memory_limit_mb=1000)


def test_another_training_never_resumes(
    clean: None, model: ModelRef, digits: DatasetRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="layerflow")
    train(model, digits, tmp_path, epochs=1)
    for settings in ({"seed": 1}, {"batch_size": 16}, {"optimizer": "sgd"}, {"schedule": "CosineDecay"}):
        assert train(model, digits, tmp_path, epochs=2, **settings).epochs == 2
    fewer = train(model, digits, tmp_path, epochs=1, schedule="CosineDecay")
    assert fewer.epochs == 1
    assert "resuming" not in caplog.text


def test_a_damaged_slot_falls_back_to_the_other_and_two_to_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:

    def found() -> object:
        there = Checkpoint(tmp_path).found
        return there and there[1]["epoch"]

    saving = Checkpoint(tmp_path)
    assert found() is None
    for epoch in (1, 2, 3):
        saving.save({"a": np.arange(epoch)}, {"epoch": epoch})
        assert found() == epoch
    slots = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for slot, left in zip(reversed(slots), (2, None), strict=True):
        content = bytearray(slot.read_bytes())
        content[-40] ^= 1
        slot.write_bytes(content)
        assert found() == left
    assert "is damaged and is not used" in caplog.text
    Checkpoint(tmp_path).save({}, {"epoch": 9})
    assert found() == 9


def test_the_best_epochs_weights_are_kept_and_training_stops_early(
    model: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    # This learning rate overshoots: the best epoch is long before the last.
    made = train(model, digits, tmp_path, epochs=40, patience=2, learning_rate=0.1)
    assert made.epochs == made.best_epoch + 2 < 40
    best = min(made.history, key=lambda epoch: epoch.val_loss)
    assert best.epoch == made.best_epoch
    images, labels = images_and_labels(digits, "validation")
    logits = keras.models.load_model(tmp_path / "model.keras")(np.array(images)).numpy()
    assert cross_entropy(logits, labels) == pytest.approx(best.val_loss, rel=1e-5)


@pytest.mark.parametrize("xla", ["xla", "graph"])
def test_a_loss_that_is_no_number_stops_at_once_says_where_and_keeps_the_checkpoint(
    clean: None, model: ModelRef, digits: DatasetRef, tmp_path: Path, xla: str
) -> None:
    # A schedule that leaps out of the numbers that float32 has, in the second epoch of 43 steps.
    leap = {"class_name": "PiecewiseConstantDecay", "config": {"boundaries": [60], "values": [1e-3, 1e38]}}
    settings = {"schedule": leap, "compile": xla}
    with pytest.raises(NonFiniteLossError, match=r"not after step \d+ of epoch 2; lower training.learning_rate"):
        train(model, digits, tmp_path, epochs=5, **settings)
    assert not (tmp_path / "model.keras").exists()
    arrays, state = Checkpoint(next((store.root() / "checkpoints").iterdir())).found or ({}, {})
    assert len(state["history"]) == 1
    for name, array in arrays.items():
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_ships_float32(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, precision: str
) -> None:
    made = train(model, digits, tmp_path, epochs=15, precision=precision, compile="xla")
    assert made.history[-1].val_accuracy > 0.8
    shipped = keras.models.load_model(tmp_path / "model.keras")
    assert shipped.compute_dtype == "float32"


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "AdamW", "schedule": "CosineDecay"},
        {"optimizer": {"class_name": "SGD", "config": {"momentum": 0.9, "clipnorm": 1.0, "learning_rate": 0.1}}},
        {"optimizer": {"class_name": "Adam", "config": {"use_ema": True, "ema_momentum": 0.9}}},
        {"schedule": {"class_name": "CosineDecay", "config": {"warmup_steps": 40, "warmup_target": 0.01}}},
    ],
    ids=["cosine", "momentum and clipping", "moving average", "warm-up"],
)
def test_optimizers_and_schedules_are_those_of_keras(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, settings: dict[str, object]
) -> None:
    assert train(model, digits, tmp_path, epochs=10, **settings).history[-1].val_accuracy > 0.7


def test_an_optimizer_that_keras_refuses_is_one_sentence(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is refused by Keras") as caught:
        train(model, digits, tmp_path, optimizer={"class_name": "Adam", "config": {"speed": 3}})
    assert "\n" not in str(caught.value)


def test_the_optimizers_and_schedules_that_the_config_knows_are_those_of_keras() -> None:
    schedules = keras.optimizers.schedules
    kinds = (keras.optimizers, keras.optimizers.Optimizer), (schedules, schedules.LearningRateSchedule)
    ours, theirs = (
        {name for name, each in vars(module).items() if isinstance(each, type) and issubclass(each, kind)}
        - {kind.__name__}
        for module, kind in kinds
    )
    assert set(OPTIMIZERS) == ours - {"LossScaleOptimizer", "MultiOptimizer"}, "these two are made of others"
    assert set(SCHEDULES) == theirs


def test_keras_callbacks_are_called_as_in_fit(clean: None, model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    class Recorder(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def on_train_begin(self, logs: object = None) -> None:
            self.calls.append("train begins")

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.calls.append(f"{epoch} begins")

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.calls.append(f"{epoch} ends with {sorted(logs or {})}")
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs: object = None) -> None:
            self.calls.append("train ends")

    recorder, log = Recorder(), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    folder = tmp_path / "made"
    folder.mkdir()
    made = training.train(TrainingConfig(epochs=5), model, digits, folder, [recorder, log])
    figures = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert recorder.calls == [
        "train begins",
        *("0 begins", f"0 ends with {figures}", "1 begins", f"1 ends with {figures}"),
        "train ends",
    ]
    assert made.epochs == 2
    assert (tmp_path / "log.csv").read_text().count("\n") == 3


def test_many_short_epochs_do_not_flood_the_log(
    model: ModelRef,
    digits: DatasetRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "_LOG_SECONDS", 1000.0)
    with caplog.at_level(logging.INFO):
        train(model, digits, tmp_path / "made", epochs=9, patience=9, seed=77)
    lines = {record.getMessage().split("  ")[0] for record in caplog.records if " images/s" in record.getMessage()}
    assert lines == {"epoch 1/9", "epoch 9/9"}


def test_what_xla_cannot_compile_runs_as_a_graph_from_training_to_export(
    digits: DatasetRef, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "programs")
    config, lines = ModelConfig(name="area_network:make"), []
    monkeypatch.setattr(predict.log, "warning", lambda message, *what: lines.append(message % what))
    model = artifacts.make("build_model", "area", ModelRef, lambda folder: build(config, digits, 0, folder))

    def said() -> list[str]:
        found = lines[:]
        lines.clear()
        return found

    line = ["XLA can't compile this network (ResizeArea); it runs as a TensorFlow graph"]
    settings = TrainingConfig(epochs=2)
    trained = artifacts.make("train_model", "area", TrainedRef, lambda f: training.train(settings, model, digits, f))
    assert trained.compiled == "graph"
    assert said() == line
    again = training.train(settings, model, digits, tmp_path)
    assert again.compiled == "graph", "nothing was left to be trained"
    assert said() == []
    scored = artifacts.make("evaluate_model", "area", Evaluation, lambda f: evaluate(trained, digits, f))
    assert scored.accuracy > 0.15  # after two epochs; chance is 0.1
    assert said() == line
    exported = artifacts.make("export_model", "area", ExportRef, lambda f: saved_model.export(trained, digits, f))
    assert said() == line
    assert check_graph(store.path(exported.saved_model))


def test_xla_is_chosen_by_the_rule_and_recorded(model: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    convolutional = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert uses_xla(convolutional, (8, 8, 1), "auto") == on_gpu
    assert uses_xla(convolutional, (8, 8, 1), "xla")
    assert uses_xla(keras.models.load_model(store.path(model.keras)), (8, 8, 1), "auto")
    assert train(model, digits, tmp_path, epochs=1, compile="auto").compiled == "xla"
    assert train(model, digits, tmp_path, epochs=1, compile="graph").compiled == "graph"


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
