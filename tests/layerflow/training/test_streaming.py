"""Streaming: the bits of resident training, in bounded memory, where the budget asks for it."""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import artifacts, memory
from layerflow.data.arrays import images_and_labels
from layerflow.models import build as building
from layerflow.models.mlp import Mlp
from layerflow.models.predict import make_predictor
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import epoch_windows
from layerflow.training import train as training
from layerflow.training.engine import Engine
from layerflow.training.epoch_windows import Windows
from tests import forked
from tests.shared import GRAPH

pytestmark = pytest.mark.slow

#: Of ``many``, in batches of 32: 50 batches.
SMALL_WINDOW = 50 * 32 * 64
STREAMED, RESIDENT = 1, 100


@pytest.fixture(scope="module")
def many(digits: DatasetRef) -> DatasetRef:
    """The digits eight times: held three times, they take more than one MiB."""

    def write(folder: Path) -> DatasetRef:
        for split in ("train", "validation", "test"):
            for kind, content in zip(("images", "labels"), images_and_labels(digits, split), strict=True):
                np.save(folder / f"{split}_{kind}.npy", np.concatenate([content] * 8), allow_pickle=False)
        return digits.model_copy(update={"digest": "many"})

    return artifacts.make("load_data", "many", DatasetRef, write)


@pytest.fixture(autouse=True)
def small_windows(session_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that do not divide the epoch, and no checkpoint of an earlier test."""
    monkeypatch.setattr(epoch_windows, "WINDOW_BYTES", SMALL_WINDOW)
    shutil.rmtree(session_store / "checkpoints", ignore_errors=True)


def build(data: DatasetRef, **settings: object) -> ModelRef:
    config = ModelConfig(**settings)
    key = f"streamed-{config.model_dump_json()}"
    return artifacts.make("build_model", key, ModelRef, lambda folder: building.build(config, data, 0, folder))


def train(model: ModelRef, data: DatasetRef, folder: Path, **settings: object) -> tuple[TrainedRef, list[object]]:
    """What was trained, and all that must be the same bits."""
    folder.mkdir(exist_ok=True)
    made = training.train(TrainingConfig(**GRAPH | settings), model, data, folder)
    weights = [weight.tobytes() for weight in keras.models.load_model(folder / "model.keras").get_weights()]
    return made, [*weights, made.steps, *(epoch.model_dump(exclude={"seconds"}) for epoch in made.history)]


def small_engine(images: np.ndarray, streamed: bool = True) -> Engine:
    network = Mlp(hidden=(8,), classes=10)
    network.build((None, *images.shape[1:]))
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    return Engine(network, optimizer, images, np.zeros(len(images), np.int32), 7, 0, streamed=streamed)


@pytest.mark.parametrize(
    ("network", "compiled"),
    [
        ({"hidden": (32,), "dropout": 0.3}, "xla"),
        pytest.param({"name": "cnn", "width": 4}, "graph", marks=pytest.mark.drill),
    ],
    ids=["mlp and xla", "cnn and graph"],
)
def test_streamed_training_has_the_bits_of_resident_training(
    many: DatasetRef, tmp_path: Path, session_store: Path, network: dict[str, object], compiled: str
) -> None:
    model, settings = build(many, **network), {"epochs": 2, "compile": compiled}
    assert many.counts["train"] * 8 % 32, "the last batch must be a partial one"
    resident, expected = train(model, many, tmp_path / "resident", memory_budget=RESIDENT, **settings)
    shutil.rmtree(session_store / "checkpoints")
    streamed, received = train(model, many, tmp_path / "streamed", memory_budget=STREAMED, **settings)
    assert (resident.feed, streamed.feed) == ("resident", "streamed")
    assert received == expected


@pytest.mark.parametrize(
    ("before", "after"), [(STREAMED, STREAMED), (RESIDENT, STREAMED), (STREAMED, RESIDENT)], ids=str
)
def test_interrupted_in_mid_epoch_it_goes_on_with_the_same_bits_streamed_or_not(
    many: DatasetRef, tmp_path: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    model = build(many, hidden=(32,), dropout=0.3)
    _, expected = train(model, many, tmp_path, memory_budget=RESIDENT, epochs=3)
    shutil.rmtree(session_store / "checkpoints")
    original, positions = Engine.run_chunk, []

    def cancelled(self: Engine, epoch: int) -> bool:
        if epoch == 2 and int(self.position) > 60:  # within the second window
            raise KeyboardInterrupt
        self._chunk = 30
        return original(self, epoch)

    def watched(self: Engine, epoch: int) -> bool:
        positions.append((epoch, int(self.position)))
        return original(self, epoch)

    monkeypatch.setattr(Engine, "run_chunk", cancelled)
    with pytest.raises(KeyboardInterrupt):
        train(model, many, tmp_path, memory_budget=before, epochs=3)
    monkeypatch.setattr(Engine, "run_chunk", watched)
    _, received = train(model, many, tmp_path, memory_budget=after, epochs=3)
    assert received == expected
    assert positions[0] == (2, 80 if before == STREAMED else 90)


@pytest.mark.process
def test_two_replicas_stream_the_bits_that_they_have_resident() -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "streams_on_two_replicas.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("examples", [100, 98, 5])
def test_the_windows_of_an_epoch_show_each_image_once_in_its_order(examples: int, streamed: bool) -> None:
    images = np.random.default_rng(1).integers(0, 256, (examples, 16, 16, 1), np.uint8)
    labels = np.arange(examples, dtype=np.int32)
    made = Windows(images, labels, batch_size=7, seed=4, streamed=streamed)
    shapes, seen = {made.blank().images.shape.as_list()[0]}, []
    for epoch in (1, 2):
        step, places = 0, []
        while step < made.steps:
            window = made.at(epoch, step)
            assert window.start == step
            assert made.at(epoch, window.stop - 1) is window
            shapes.add(window.images.shape.as_list()[0])
            these = window.labels.numpy()[: (window.stop - window.start) * 7][: examples - step * 7]
            np.testing.assert_array_equal(window.images.numpy()[: len(these)], images[these])
            places += these.tolist()
            step = window.stop
        np.testing.assert_array_equal(places, made.order(epoch))
        assert sorted(places) == list(range(examples))
        seen.append(places)
    assert seen[0] != seen[1]
    assert len(shapes) == 1, "one shape is one compilation"
    assert len(made._made) == 2, "the one in use, and the next"


@pytest.mark.parametrize(
    ("free_mib", "budget", "feed"),
    [(100, None, "resident"), (4, None, "streamed"), (100, 1, "streamed"), (1, 100, "resident")],
)
def test_the_budget_decides_and_is_half_of_the_free_memory_where_none_is_set(
    many: DatasetRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free_mib: int,
    budget: int | None,
    feed: str,
) -> None:
    caplog.set_level(logging.INFO, logger="layerflow")
    monkeypatch.setattr(memory, "free_bytes", lambda: free_mib * 2**20)
    images, labels = images_and_labels(many, "train")
    assert 2 < epoch_windows.resident_bytes(images, labels) / 2**20 < 50, "between half of 4 MiB and half of 100"
    model = build(many, hidden=(4,))
    monkeypatch.setattr(epoch_windows, "WINDOW_BYTES", 2**20)
    assert train(model, many, tmp_path, epochs=1, memory_budget=budget)[0].feed == feed
    expected = f"streaming 1 MiB of images in windows of 1 MiB (budget {budget or free_mib // 2} MiB)"
    assert (expected in caplog.text) == (feed == "streamed")


def test_what_is_free_is_what_the_machine_or_its_strictest_control_group_leaves(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", "MemTotal: 2000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 0\n")
    assert memory.free_bytes(tmp_path) == 1_024_000
    write("proc/self/cgroup", "0::/service/own\n")
    for folder, limit in (("service/own", "max"), ("service", "900000")):
        write(f"sys/fs/cgroup/{folder}/memory.max", limit)
        write(f"sys/fs/cgroup/{folder}/memory.current", "500000")
        write(f"sys/fs/cgroup/{folder}/memory.stat", "anon 200000\ninactive_file 100000\n")
    assert memory.free_bytes(tmp_path) == 900_000 - 500_000 + 100_000
    # Version 1, in a container that sees its own group as the topmost.
    write("proc/self/cgroup", "4:cpu:/docker/0\n3:memory:/docker/0\n0::/\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "800000")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000")
    write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n")
    assert memory.free_bytes(tmp_path) == 300_000
    for _ in range(2):  # of this machine, and of one that is no Linux
        assert 2**20 < memory.free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory.free_bytes(tmp_path / "no Linux")


@pytest.mark.parametrize("streamed", [True, False])
def test_the_function_is_compiled_once_whatever_the_window_and_the_step(
    monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(epoch_windows, "WINDOW_BYTES", 3 * 7 * 36)
    engine, seconds = small_engine(np.zeros((100, 6, 6, 1), np.uint8), streamed), []
    for call in [engine.warm_up, *[lambda: engine.run_chunk(1)] * engine.steps]:
        engine._chunk, began = 1, time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    assert int(engine.position) == engine.steps
    # Compiling takes a hundred times as long as a step; the median, for the machine may do other things.
    assert np.median(seconds) < seconds[0] / 10


def test_a_window_that_can_not_be_read_is_an_error_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_windows, "WINDOW_BYTES", 3 * 7 * 36)
    engine = small_engine(np.zeros((100, 6, 6, 1), np.uint8))
    original = Windows._make

    def broken(self: Windows, epoch: int, start: int) -> epoch_windows.Window:
        if start:
            raise OSError("the disk is gone")
        return original(self, epoch, start)

    monkeypatch.setattr(Windows, "_make", broken)
    assert not engine.run_chunk(1)
    with pytest.raises(OSError, match="the disk is gone"):
        engine.run_chunk(1)
    assert int(engine.position) == 3, "what was trained stays as it is"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read in /proc")
@pytest.mark.process
def test_memory_does_not_grow_with_the_file_that_is_streamed(tmp_path: Path) -> None:
    """In a process of its own, whose memory is measured."""
    command = [sys.executable, forked.PROGRAMS / "streams_a_large_file.py", str(tmp_path / "images.npy")]
    done = forked.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_large_images_are_answered_a_few_at_a_time() -> None:
    sizes = []

    def network(images: tf.Tensor, training: bool) -> tf.Tensor:
        sizes.append(images.shape[0])
        return tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2))

    images = np.ones((12, 1024, 1024, 1), np.uint8)
    np.testing.assert_array_equal(make_predictor(network, xla=False)(images), np.ones((12, 1)))
    assert sizes == [8, 4]
