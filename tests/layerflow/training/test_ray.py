"""Training by two real workers on a real Ray: the laws, a worker that is killed, and clusters that won't do."""

import contextlib
import logging
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

from layerflow import artifacts, store
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ClusterError, NonFiniteLossError, UnreachableError
from layerflow.models.build import build, make_model
from layerflow.models.seeded import seeded
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import ray_cluster, ray_worker
from layerflow.training import train as training
from layerflow.training.epoch_windows import Windows
from layerflow.weights import FirstWeights
from tests import forked

pytest.importorskip("ray", reason="the extra `ray` is not installed")

#: 1,354 images make 33 batches of 41 and a last one of a single image: one of two workers has none then.
BATCH, EPOCHS = 41, 3
STEPS = 34
#: Clips at nearly each step: it must be the gradient of the whole batch that is clipped.
CLIPPING = {"class_name": "Adam", "config": {"global_clipnorm": 0.5}}


class Recorder(keras.callbacks.Callback):
    """What a callback is told."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs.append(epoch)
        self.losses.append((logs or {})["loss"])


class Run(NamedTuple):
    """A training, and where its network wrote what each process saw."""

    made: TrainedRef
    folder: Path
    notes: Path
    told: Recorder

    def by_worker(self, name: str) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.notes.glob(f"*.{name}"))]

    @property
    def weights(self) -> list[np.ndarray]:
        return keras.models.load_model(self.folder / "model.keras").get_weights()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the network's module, to work in, and a Ray of two CPUs to which ``RAY_ADDRESS`` leads."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(forked.PROGRAMS / "spies.py", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    options = [f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--object-store-memory=100000000"]
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",  # whether or not there is a token on this machine
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*start, *options], env=environment, **quiet) as head:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            _wait_until_it_answers(f"127.0.0.1:{port}")
            yield folder
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:  # by itself: 30 s
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _wait_until_it_answers(address: str) -> None:
    for _ in range(12):
        with contextlib.suppress(UnreachableError):
            return ray_cluster._knock(address)
    raise AssertionError("no Ray within a minute")


def train(data: DatasetRef, notes: Path, model: dict[str, object] | None = None, **settings: object) -> Run:
    """Build a network that notes into the new folder ``notes``, and train it."""
    notes.mkdir()
    options = {"folder": str(notes), **(model or {})}
    built = artifacts.make(
        "build_model",
        f"spy-{notes.name}",
        ModelRef,
        lambda folder: build(ModelConfig(name="spies:Spy", options=options), data, 0, folder),
    )
    told, folder = Recorder(), store.root() / f"trained-{notes.name}"
    folder.mkdir()
    usual = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "learning_rate": 1e-2,
        "workers": 2,
        "compile": "graph",
        "optimizer": CLIPPING,
        "class_weight": {"3": 2.0},
        "metrics": ["AUC"],
    }
    return Run(training.train(TrainingConfig(**usual | settings), built, data, folder, [told]), folder, notes, told)


@pytest.fixture(scope="module")
def two(workplace: Path, digits: DatasetRef) -> Run:
    """A training by two workers, to its end."""
    return train(digits, workplace / "two")


def shares(digits: DatasetRef) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What each of two workers should train on in each step: ``uint8`` images."""
    images, labels = images_and_labels(digits, "train")
    windows = Windows(images, labels, BATCH, seed=0, streamed=False)
    for epoch in range(1, EPOCHS + 1):
        for start in range(0, len(labels), BATCH):
            batch = images[windows.order(epoch)[start : start + BATCH]]
            yield batch[::2], batch[1::2] if len(batch) > 1 else batch[-1:]


def test_every_image_counts_once_an_epoch_and_each_worker_sees_its_share(two: Run, digits: DatasetRef) -> None:
    """The last batch has one image: the worker that has none sees it too, and it must count once."""
    expected = [b"".join(share[worker].tobytes() for share in shares(digits)) for worker in (0, 1)]
    assert Counter(two.by_worker("images")) == Counter(expected)
    assert two.made.steps == EPOCHS * STEPS
    assert two.made.replicas == 2
    # Accuracies are whole numbers of images: the one that both saw was counted once.
    for epoch in two.made.history:
        right = epoch.accuracy * digits.counts["train"]
        assert right == pytest.approx(round(right), abs=1e-6)


def test_both_workers_end_with_the_same_bits_which_are_the_models(two: Run) -> None:
    workers = [file.with_suffix(".npz") for file in two.notes.glob("*.images")]
    assert len(workers) == 2
    assert two.made.best_epoch == EPOCHS, "the last weights are what is shipped"
    for file in workers:
        with np.load(file, allow_pickle=False) as seen:
            for name, shipped in zip(seen, two.weights, strict=True):
                np.testing.assert_array_equal(seen[name], shipped)


def test_two_workers_have_the_losses_of_one(two: Run, digits: DatasetRef, workplace: Path) -> None:
    one = train(digits, workplace / "one", workers=1)
    assert one.made.replicas == 1
    for mine, reference in zip(two.made.history, one.made.history, strict=True):
        # The gradients of half batches are summed in another order: float32 rounding, grown over 102 steps of Adam.
        assert mine.loss == pytest.approx(reference.loss, rel=1e-5)
        assert mine.val_loss == pytest.approx(reference.val_loss, rel=1e-5)
        # What the metric counted is summed; an image near one of its 200 thresholds may be on the other side.
        assert mine.model_extra["val_auc"] == pytest.approx(reference.model_extra["val_auc"], abs=1e-4)
        assert mine.accuracy == pytest.approx(reference.accuracy, abs=2 / digits.counts["train"])
    assert two.made.history[-1].loss < two.made.history[0].loss / 2


@pytest.mark.drill
def test_two_workers_go_from_the_head_to_the_whole_network_as_one_does(digits: DatasetRef, workplace: Path) -> None:
    config = ModelConfig(hidden=(16,), weights="first.weights.h5")
    with seeded(1):
        make_model(config, len(digits.classes), digits.image_shape).save_weights(workplace / "first.weights.h5")
    weights = FirstWeights(digest="first", source="first", file=workplace / "first.weights.h5")
    model = artifacts.make("build_model", "warm", ModelRef, lambda made: build(config, digits, 0, made, weights))
    histories = []
    for workers in (1, 2):
        (folder := workplace / f"warm-{workers}").mkdir()
        settings = TrainingConfig(epochs=2, batch_size=BATCH, workers=workers, compile="graph", optimizer=CLIPPING)
        trained = training.train(settings, model, digits, folder, finetune=FinetuneConfig(head_epochs=1))
        assert trained.head_epochs == 1
        histories.append([(epoch.loss, epoch.val_loss) for epoch in trained.history])
    np.testing.assert_allclose(*histories, rtol=1e-5)


def test_moving_averages_are_the_mean_of_those_of_each_workers_share(two: Run, digits: DatasetRef) -> None:
    mean, variance = np.zeros(64), np.ones(64)
    for step in shares(digits):
        pixels = [share.reshape(len(share), 64) / 255 for share in step]
        mean = 0.99 * mean + 0.01 * np.mean([each.mean(axis=0) for each in pixels], axis=0)
        variance = 0.99 * variance + 0.01 * np.mean([each.var(axis=0) for each in pixels], axis=0)
    network = keras.models.load_model(two.folder / "model.keras")
    # Float32 against float64, over 102 averages.
    np.testing.assert_allclose(network.normal.moving_mean, mean, atol=1e-5)
    np.testing.assert_allclose(network.normal.moving_variance, variance, atol=1e-5)


def test_each_worker_drops_with_masks_of_its_own(two: Run) -> None:
    # Of the first step, in which one worker has an image more.
    pixels = BATCH // 2 * 64
    first, second = (np.frombuffer(each[:pixels], bool) for each in two.by_worker("masks"))
    # Independent fair coins agree half of the time; six standard deviations of that share.
    assert (first == second).mean() == pytest.approx(0.5, abs=3 / np.sqrt(pixels))


def test_callbacks_hear_of_every_epoch(two: Run) -> None:
    assert two.told.epochs == list(range(EPOCHS))
    assert two.told.losses == [epoch.loss for epoch in two.made.history]


@pytest.mark.drill
def test_a_killed_worker_is_replaced_and_the_model_has_the_same_bits(
    two: Run, digits: DatasetRef, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="layerflow")
    in_the_last_epoch = (EPOCHS - 1) * STEPS + 5
    (workplace / "death").touch()
    killed = train(digits, workplace / "killed", {"death": str(workplace / "death"), "dies_at": in_the_last_epoch})
    assert not (workplace / "death").exists()
    assert len(killed.by_worker("images")) == 4, "two workers, and the two that replaced them"
    # Where the last epoch began, or the one before: on a busy machine not every short epoch ends with a checkpoint.
    assert re.search(rf"resuming at epoch [2{EPOCHS}] of {EPOCHS}", caplog.text)
    for mine, reference in zip(killed.weights, two.weights, strict=True):
        np.testing.assert_array_equal(mine, reference)
    figures = [[epoch.model_dump(exclude={"seconds"}) for epoch in run.made.history] for run in (killed, two)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NonFiniteLossError("The loss must stay finite."), NonFiniteLossError),  # it would come again
        (ValueError("a network's own"), RuntimeError),
        (tf.errors.UnavailableError(None, None, "the other worker is gone"), None),
        (UnreachableError("the store is away"), None),
    ],
)
def test_what_would_come_again_is_told_and_for_the_rest_the_workers_are_started_again(
    error: Exception, told: type | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(ray_worker, "_train", fail)
    news: queue.Queue[tuple[str, Exception]] = queue.Queue()
    job = SimpleNamespace(place=ray_cluster.Place(store.root(), os.getcwd(), "mlp"))
    if told is None:
        with pytest.raises(type(error)):  # Ray hears it
            ray_worker.Worker().work(job, news, [], 0)
        assert news.empty()
        return
    ray_worker.Worker().work(job, news, [], 0)
    kind, answer = news.get_nowait()
    assert (kind, type(answer)) == ("failed", told)
    assert str(error) in str(answer)


def test_a_file_that_a_worker_does_not_find_is_told_in_one_sentence_and_no_worker_is_started_again(
    digits: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = digits.model_copy(update={"folder": "no-such-data"})
    monkeypatch.setattr(ray_worker, "_train", lambda *arguments: images_and_labels(gone, "train"))
    told: queue.Queue[tuple[str, Exception]] = queue.Queue()
    job = SimpleNamespace(place=ray_cluster.Place(store.root(), os.getcwd(), "mlp"))
    ray_worker.Worker().work(job, told, [], 0)  # what it raises would start the workers again
    kind, error = told.get_nowait()
    assert (kind, type(error)) == ("failed", ClusterError)
    assert re.search(r"and \S+ finds no \S+/no-such-data/\S+; see that it is in the store\.$", str(error))


def test_what_a_lost_group_says_is_the_last_line_below_its_traceback() -> None:
    import ray

    path = "/a/long/" + "path/" * 80 + "images.npy"
    said = f"Traceback (most recent call last):\n  File 'x.py', line 1\nFileNotFoundError: no such file: {path}"
    error = ray.exceptions.RayTaskError("fit", said, FileNotFoundError(path), pid=1, ip="10.0.0.2")
    assert ray_cluster.reason_of(error) == f"FileNotFoundError: no such file: {path}"


def test_more_workers_than_the_cluster_has_cpus_is_one_sentence(digits: DatasetRef, workplace: Path) -> None:
    sentence = (
        "workers 3 needs 1 CPU for each worker on one node, and the cluster has room for 2; ask for at most 2 workers"
    )
    with pytest.raises(ClusterError, match=sentence):
        train(digits, workplace / "many", workers=3)


def test_a_head_that_is_gone_is_one_sentence_within_seconds(
    digits: DatasetRef, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"must answer within 5 seconds. 127.0.0.1:\d+ does not; start its"):
            train(digits, workplace / "alone")
        assert time.monotonic() - began < 10


HERE = {"python": "3.11.9", "keras": "3.15.0", "layerflow's code": "ab" * 32, "probe": "token"}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"probe": ""}, r"must see the store .* and node-7 does not; mount it there"),
        ({"python": "3.12.1"}, "must have python 3.11.9, as this machine has. node-7 has 3.12.1; install there"),
        ({"keras": "3.14.0"}, "must have keras 3.15.0, as this machine has. node-7 has 3.14.0"),
        ({"layerflow's code": "cd" * 32}, "must have layerflow's code abababababab, .* node-7 has cdcdcdcdcdcd"),
    ],
)
def test_a_node_that_cannot_take_part_is_named_with_the_reason(found: dict[str, str], sentence: str) -> None:
    ray_cluster.require_same("node-7", HERE, HERE, "token")
    with pytest.raises(ClusterError, match=sentence) as caught:
        ray_cluster.require_same("node-7", HERE | found, HERE, "token")
    assert "\n" not in str(caught.value)


def test_more_workers_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image a worker"):
        TrainingConfig(batch_size=2, workers=3)


@pytest.mark.process
def test_without_ray_one_sentence_says_how_to_install_it_before_anything_is_loaded(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path / "store")}
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "retrains_without_ray.py"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 2
    sentence = (
        "training.workers 2 needs Ray, which is not installed; pip install 'layerflow[ray]', or in a clone: make ray"
    )
    assert done.stderr.splitlines() == [f"layerflow: {sentence}."]
    assert not (tmp_path / "store").exists()
