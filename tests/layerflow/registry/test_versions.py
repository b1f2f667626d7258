"""The registry: whole versions, numbers that are given once, retention, and what dead processes leave."""

import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from filelock import FileLock
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from layerflow import checksums, store
from layerflow.checksums import EXTRA
from layerflow.errors import DamagedError, RegistryError
from layerflow.outcomes import Promotion
from layerflow.registry import layout, publishing, versions
from layerflow.registry.receipt import Challenger

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from publish_drill import drill

from tests import forked

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def receipt_of(label: str, files: dict[str, str], version: int) -> dict[str, object]:
    """What a receipt must hold at least."""
    return {
        "version": version,
        "export": {"digest": label, "files": files},
        "created": "2026-01-01",
        "data": {"name": "digits", "digest": "d", "classes": ["0", "1"]},
        "trained": {"digest": label},
        "evaluation": {"accuracy": 1.0, "test_digest": "t"},
        "decision": {},
    }


def publish(challenger: Challenger, label: str, name: str = NAME) -> int:
    """Publish a contender's files under the next number, as a model of its own."""
    with store.locked(f"models-{name}"):
        version = publishing.next_version(name)
        receipt = receipt_of(label, challenger.export.files, version)
        publishing.publish(name, version, store.path(challenger.export.saved_model), receipt)
    return version


def test_foreign_folders_are_no_versions_and_take_no_number(decide: Decide) -> None:
    decide("poor")
    for name in ("abc", "7.bak", ".staging-9", "007", "0", "-3", "²"):
        (layout.home(NAME) / name).mkdir()
    (layout.home(NAME) / "8").write_text("a file, and no version")
    assert versions.numbers(NAME) == [1]
    assert decide("good").version == 9
    assert (layout.home(NAME) / "7.bak").is_dir()


def test_a_number_is_never_given_again_even_if_its_folder_was_deleted(decide: Decide) -> None:
    decide("poor")
    assert decide("good").version == 2
    shutil.rmtree(layout.home(NAME) / "2")
    assert versions.numbers(NAME) == [1]
    assert decide("good").version == 3


def test_a_version_is_whole_or_absent(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(versions.store, "sync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            decide("good")
    assert sorted(entry.name for entry in layout.home(NAME).iterdir()) == [".ledger.json", ".ledger.json.bak"]
    assert decide("good").version == 2


@pytest.mark.process
def test_a_disk_that_fills_up_in_the_middle_is_one_sentence_and_loses_nothing(
    decide: Decide, contenders: dict[str, Challenger], shelf: Path
) -> None:
    """In a process of its own, which may write files of 2,000 bytes at most."""
    decide("poor")
    export = contenders["good"].export
    receipt = json.dumps(receipt_of(export.digest, export.files, 2))
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "publishes_on_a_full_disk.py", export.model_dump_json(), receipt],
        env={**os.environ, "LAYERFLOW_STORE": str(shelf)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "File too large" in done.stderr
    assert versions.numbers(NAME) == [1]
    assert checksums.damage(layout.home(NAME) / "1") is None
    assert not list(layout.home(NAME).glob(".staging*"))
    assert decide("good").version == 3
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_old_versions_are_removed_but_never_the_champion_nor_the_one_before(
    shelf: Path, contenders: dict[str, Challenger]
) -> None:
    for label in ("a", "b", "b", "b"):
        publish(contenders["good"], label)
    with store.locked(f"models-{NAME}"):
        publishing.prune(NAME, keep=10)
        assert versions.numbers(NAME) == [4, 3, 2, 1]
        publishing.prune(NAME, keep=1)
    assert versions.numbers(NAME) == [4, 1], "1 is what a rollback would restore"
    assert versions.predecessor(NAME) == 1
    assert not list(layout.home(NAME).glob(".removing*"))


def test_retention_works_in_a_run_and_is_named_in_the_log(decide: Decide, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="layerflow")
    for who in ("poor", "good", "similar", "poor", "good"):
        decide(who, registry={"keep": 2}, force="a test")
    assert versions.numbers(NAME) == [5, 4]
    assert "removed version 3 of mlp-digits: registry.keep is 2" in caplog.text


@pytest.mark.process
def test_what_a_dead_process_left_is_removed_and_what_a_living_one_makes_is_not(decide: Decide) -> None:
    """In processes of their own: a lock keeps processes apart."""
    decide("good")
    staging, removing = (layout.home(NAME) / name for name in (".staging-2", ".removing-1"))
    for folder in (staging, removing):
        (folder / "variables").mkdir(parents=True)
    held = FileLock(store.root() / ".locks" / f"models-{NAME}.lock", thread_local=False)
    with held:
        code = "import sys; from layerflow.registry import publishing; publishing.remove_leftovers(sys.argv[1])"
        forked.run([sys.executable, "-c", code, NAME], check=True, timeout=60)
        assert staging.is_dir()
    publishing.remove_leftovers(NAME)
    assert not staging.exists()
    assert not removing.exists()
    assert versions.numbers(NAME) == [1]


@pytest.mark.process
def test_work_that_died_is_removed_and_work_that_goes_on_stays(empty_store: Path) -> None:
    """In processes of their own: a lock keeps processes apart."""
    dead, alive = (empty_store / "train_model" / f".{key}.working" for key in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    code = "from layerflow import store; store.remove_leftovers()"
    with store.locked("train_model-alive"):
        forked.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [folder.exists() for folder in (dead, alive)] == [False, True]


def test_a_ledger_that_can_not_be_read_publishes_nothing(decide: Decide) -> None:
    decide("good")
    for name in (".ledger.json", ".ledger.json.bak"):
        (layout.home(NAME) / name).write_text("{")
    with pytest.raises(DamagedError, match="restore it from a backup of the store, or rebuild it"):
        decide("similar", margin=1.0)
    assert versions.numbers(NAME) == [1]


def test_names_and_versions_that_do_not_exist_are_one_sentence(decide: Decide) -> None:
    with pytest.raises(RegistryError, match="None is; run layerflow retrain"):
        versions.the_name(None)
    decide("good")
    assert versions.the_name(None) == NAME
    with pytest.raises(RegistryError, match=r"Received: mlp-digit \(did you mean mlp-digits\?\)"):
        versions.the_name("mlp-digit")
    with pytest.raises(RegistryError, match=r"must be one that is published \(1\). Received: 7"):
        versions.folder_of(NAME, 7)
    decide("poor", registry={"name": "another"})
    with pytest.raises(RegistryError, match="say which with --name: one of another, mlp-digits"):
        versions.the_name(None)


@pytest.mark.parametrize(
    ("harm", "damage"),
    [
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"?"), "saved_model.pb was changed"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda folder: (folder / "more").write_bytes(b"?"), "more does not belong to the model"),
        (lambda folder: (folder / checksums.DIGESTS).unlink(), "SHA256SUMS can't be read"),
        (lambda folder: (folder / layout.RECEIPT).write_text("{}"), "receipt.json was changed"),
    ],
)
def test_damage_to_a_version_is_named(decide: Decide, harm: Callable[[Path], None], damage: str) -> None:
    decide("good")
    folder = layout.home(NAME) / "1"
    assert checksums.damage(folder) is None
    harm(folder)
    assert damage in (checksums.damage(folder) or "")


def test_a_published_version_carries_warm_up_requests_that_it_can_answer(decide: Decide) -> None:
    decide("good")
    folder = layout.home(NAME) / "1"
    loaded = tf.saved_model.load(str(folder))
    records = list(tf.data.TFRecordDataset(str(folder / EXTRA / "tf_serving_warmup_requests")).as_numpy_iterator())
    sizes = []
    for record in records:
        request = PredictionLog.FromString(record).predict_log.request
        signature = loaded.signatures[request.model_spec.signature_name]
        inputs = {name: tf.constant(tf.make_ndarray(each)) for name, each in request.inputs.items()}
        sizes.append((request.model_spec.signature_name, len(signature(**inputs)["class_id"])))
    assert sizes == [("serving_default", 1), ("serving_default", 32), ("image_bytes", 1), ("image_bytes", 32)]


@pytest.mark.process
def test_two_processes_that_publish_at_once_get_two_numbers(shelf: Path, contenders: dict[str, Challenger]) -> None:
    """In processes of their own: a lock keeps processes apart."""
    environment = {**os.environ, "LAYERFLOW_STORE": str(shelf)}
    export = contenders["good"].export
    both = [
        forked.Popen(
            [
                sys.executable,
                forked.PROGRAMS / "publishes_twenty.py",
                export.model_dump_json(),
                json.dumps(receipt_of(who, export.files, 1)),
            ],
            env=environment,
            stdin=forked.PIPE,
            stdout=forked.PIPE,
            text=True,
        )
        for who in ("one", "other")
    ]
    for process in both:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    given = [[int(line) for line in process.communicate(timeout=120)[0].split()] for process in both]
    assert sorted(given[0] + given[1]) == list(range(1, 41)), "no number twice, none lost"
    for version in versions.numbers("busy"):
        assert checksums.damage(layout.home("busy") / str(version)) is None
        receipt = json.loads((layout.home("busy") / str(version) / layout.RECEIPT).read_text())
        assert version in given[["one", "other"].index(receipt["export"]["digest"])]


@pytest.mark.process
def test_a_publisher_that_was_killed_leaves_the_lock_free(shelf: Path, contenders: dict[str, Challenger]) -> None:
    """In a process of its own, since it is killed."""
    process = forked.Popen(
        [sys.executable, forked.PROGRAMS / "publishes_for_a_minute.py"], stdout=forked.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "publishing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert publish(contenders["good"], "next") == 1


@pytest.mark.drill
@pytest.mark.process
def test_three_kills_leave_no_torn_version_and_lose_no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own, since they are killed."""
    monkeypatch.setattr("publish_drill.subprocess", forked)
    seed = time.time_ns() % 1_000_000
    monkeypatch.setenv("LAYERFLOW_STORE", "set by the drill")
    assert drill(3, seed) == 0, f"seed {seed}"
