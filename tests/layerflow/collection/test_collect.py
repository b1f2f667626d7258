"""What a collection removes, what it leaves alone, and what others may do meanwhile."""

import errno
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from layerflow import artifacts, store, uses
from layerflow.checksums import EXTRA
from layerflow.collection import collect as collecting
from layerflow.collection import liveness
from layerflow.collection.card import draw, summary
from layerflow.collection.collect import collect
from layerflow.collection.items import STEPS
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError
from layerflow.records import ModelRef
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.settings.gc import GcConfig
from layerflow.training.checkpoint import checkpoint_of
from tasks.caching import StoreCache
from tests.shared import copy_artifact

NOW, DAY = time.time(), 24 * 3600
NOTHING_YOUNG = GcConfig(keep_days=0, keep_runs=0)


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    """What an earlier test used is used no more."""
    yield
    if uses._mine:
        uses._mine.end()
        uses._mine = None


def write(path: str, content: str = "content", age: float = 0.0) -> Path:
    """A file in the store, in a folder that has the same age in days."""
    file = store.root() / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    for each in (file, file.parent):
        os.utime(each, (NOW - age * DAY, NOW - age * DAY))
    return file


def left() -> set[str]:
    """The files in the store, but for locks and notes."""
    files = {each.relative_to(store.root()).as_posix() for each in store.root().rglob("*") if each.is_file()}
    return {each for each in files if not each.startswith((".locks", ".uses"))}


#: One of each kind, whose locks have the names that follow.
OLD = {
    "train_model/a/card.md": "",
    "train_model/.damaged-b-17/card.md": "",
    "checkpoints/c-3-epochs/a.ckpt": "training-c",
    "tensorboard/mlp-digits/20260101-000000-d/events": "training-d5f0",
    "sweeps/e/journal.log": "sweeps-e",
    "receipts/cats/f-against-1.json": "models-cats",
    "receipts/cats/candidate-1/receipt.json": "models-cats",
    "folders/g.json": "folder-g",
    f"packs/{'7' * 32}/images.npy": "",
    "tfds/mnist/3.0.1/data": "load_data-h",
}


def write_old() -> None:
    for path in OLD:
        write(path, age=31)
    write("receipts/cats/f-against-1.html", age=31)
    write("tfds/mnist/.3.0.1.sha256.json", age=31)


def test_what_was_used_long_ago_and_what_nobody_needs_goes(empty_store: Path) -> None:
    write_old()
    write("train_model/young/card.md", age=29)
    mine = {write(path).relative_to(empty_store).as_posix() for path in ("notes/old.txt", "load_data.txt", "a/b/c")}
    done = collect(GcConfig(keep_runs=0), now=NOW)
    assert left() == {"train_model/young/card.md", *mine}, "what layerflow did not make is not its own to remove"
    assert done.removed == len(OLD)
    assert done.freed == (len(OLD) + 2) * len("content")


@pytest.mark.parametrize("path", [path for path, lock in OLD.items() if lock])
def test_what_a_process_works_on_stays(path: str, empty_store: Path) -> None:
    write_old()
    with store.locked(OLD[path]):
        collect(NOTHING_YOUNG)
    assert path in left()
    collect(NOTHING_YOUNG)
    assert left() == set()


def test_a_shorter_training_does_not_go_with_the_longer_one(empty_store: Path) -> None:
    fingerprint = "f" * 32
    checkpoint_of(fingerprint, 6).save({}, {"history": [0] * 6})
    checkpoint_of(fingerprint, 3).save({}, {"history": [0] * 2})
    os.utime(empty_store / "checkpoints" / fingerprint, (1, 1))
    collect(GcConfig())
    assert not checkpoint_of(fingerprint, 6).found
    found = checkpoint_of(fingerprint, 3).found
    assert found
    assert found[1]["history"] == [0] * 2


def test_a_dry_run_removes_nothing_and_says_what_would_go(empty_store: Path) -> None:
    write_old()
    before = left()
    told = collect(NOTHING_YOUNG, dry_run=True)
    assert left() == before
    assert told.removed == len(OLD) == collect(NOTHING_YOUNG).removed


def test_above_its_size_the_store_loses_first_what_was_used_longest_ago(empty_store: Path) -> None:
    for age in range(4):
        write(f"train_model/{age}/card.md", "x" * 100, age=age)
    done = collect(GcConfig(max_size="250B"), now=NOW)
    assert left() == {"train_model/0/card.md", "train_model/1/card.md"}
    assert (done.bytes, done.freed) == (400, 200)


def version_with(packs: list[str], key: str, age: float) -> None:
    """A version of data that needs these packs."""
    write(f"load_data/{key}/parts.json", json.dumps(packs), age=age)
    for pack in packs:
        write(f"{pack}/images.npy", "x" * 100, age=40)  # alone, none would be young


def test_a_pack_goes_with_the_last_version_that_needs_it(empty_store: Path) -> None:
    ours, shared, theirs = (f"packs/{letter * 32}" for letter in "abc")
    version_with([ours, shared], "old", age=40)
    version_with([shared, theirs], "young", age=20)
    collect(GcConfig(), now=NOW + 5 * DAY)
    assert left() == {"load_data/young/parts.json", f"{shared}/images.npy", f"{theirs}/images.npy"}
    collect(GcConfig(), now=NOW + 15 * DAY)
    assert left() == set()


def test_the_packs_of_a_model_count_as_its_own_and_stay(empty_store: Path) -> None:
    pack = f"packs/{'a' * 32}"
    version_with([pack], "old", age=40)
    write("models/pets/1/assets.extra/receipt.json", json.dumps({"data": {"folder": "load_data/old"}}))
    told = collect(GcConfig(max_size="1B"), now=NOW)
    assert f"{pack}/images.npy" in left()
    (of_model,) = told.models
    assert (of_model.bytes, told.removed) == (sum((empty_store / file).stat().st_size for file in left()), 0)


def test_a_pack_in_use_stays_without_a_version(empty_store: Path) -> None:
    pack = f"packs/{'a' * 32}"
    write(f"{pack}/images.npy", age=40)
    uses.note(empty_store, pack)
    collect(NOTHING_YOUNG)
    assert left() == {f"{pack}/images.npy"}


def test_a_damaged_version_keeps_no_pack(empty_store: Path) -> None:
    write("load_data/a/parts.json", "{", age=40)
    write("load_data/.damaged-a-1/parts.json", json.dumps([f"packs/{'a' * 32}"]), age=1)
    write(f"packs/{'a' * 32}/images.npy", age=40)
    collect(GcConfig(), now=NOW)
    assert left() == {"load_data/.damaged-a-1/parts.json"}


def test_where_the_disk_can_not_say_what_a_version_needs_nothing_goes(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_with([f"packs/{'a' * 32}"], "old", age=40)
    write("train_model/old/card.md", age=40)
    before = left()

    def fail(folder: Path) -> tuple[str, ...]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(liveness, "parts_of", fail)
    with pytest.raises(DamagedError, match="must say which packs it needs"):
        collect(GcConfig(), now=NOW)
    assert left() == before


def test_above_its_size_the_store_loses_the_packs_of_the_versions_that_go(empty_store: Path) -> None:
    ours, shared, theirs = (f"packs/{letter * 32}" for letter in "abc")
    version_with([ours, shared], "old", age=2)
    version_with([shared, theirs], "young", age=1)
    collect(GcConfig(max_size="350B"), now=NOW)
    assert left() == {"load_data/young/parts.json", f"{shared}/images.npy", f"{theirs}/images.npy"}


@pytest.fixture
def published(contenders: dict[str, Challenger], session_store: Path, empty_store: Path) -> Challenger:
    """A store of which all is a year old: a published model, what it was made from, and the dataset as TFDS made it."""
    good = contenders["good"]
    for record in filter(None, good):
        copy_artifact(record.folder, session_store, empty_store)
    shutil.copytree(session_store / "tfds", empty_store / "tfds")
    promote(RetrainConfig(), good, "run")
    uses._mine = None if uses._mine is None else uses._mine.end()
    for path in empty_store.rglob("*"):
        os.utime(path, (NOW - 365 * DAY, NOW - 365 * DAY))
    return good


def test_what_a_published_model_was_made_from_stays_however_old_it_is(published: Challenger, empty_store: Path) -> None:
    write("train_model/other/card.md", age=365)
    before = left()
    done = collect(GcConfig(keep_days=0, keep_runs=0, max_size="1B"))
    assert before - left() == {"train_model/other/card.md"}
    (model,) = done.models
    assert (model.name, model.items, model.removed) == ("mlp-digits", 9, 0)
    assert "more than max_size, 1B" in summary(done)
    for record in filter(None, published):
        artifacts.check_record(record)


def test_the_dataset_of_no_model_goes_and_that_of_one_stays(published: Challenger, empty_store: Path) -> None:
    write("tfds/digits/0.9.0/data", age=365)
    write("tfds/digits/.0.9.0.sha256.json", age=365)
    collect(NOTHING_YOUNG)
    assert {path.split("/")[2] for path in left() if path.startswith("tfds/")} >= {"1.0.0", ".1.0.0.sha256.json"}
    assert not (empty_store / "tfds/digits/0.9.0").exists()
    assert not (empty_store / "tfds/digits/.0.9.0.sha256.json").exists()


@pytest.mark.parametrize("damage", ["{", "[]", None])
def test_where_nobody_knows_what_a_version_needs_nothing_goes(
    damage: str | None, published: Challenger, empty_store: Path
) -> None:
    receipt = empty_store / "models" / "mlp-digits" / "1" / EXTRA / "receipt.json"
    receipt.unlink() if damage is None else receipt.write_text(damage)
    write_old()
    before = left()
    with pytest.raises(DamagedError, match=r"must be a receipt, .* Nothing was collected\.$"):
        collect(NOTHING_YOUNG)
    assert left() == before


def test_a_receipt_in_which_anything_stands_reaches_nothing_outside_of_the_store(empty_store: Path) -> None:
    hostile = {"data": {"folder": "../../etc", "name": None}, "trained": ["x"], "export": {"folder": {"a": 1}}}
    write("models/cats/1/assets.extra/receipt.json", json.dumps(hostile))
    write_old()
    collect(NOTHING_YOUNG)
    assert left() == {"models/cats/1/assets.extra/receipt.json"}


def test_what_a_killed_collector_moved_aside_goes_the_next_time(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old()
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_remove", lambda entry: None)
        collect(NOTHING_YOUNG)
    assert left()
    assert all("/.removed/" in path for path in left())
    assert collect(NOTHING_YOUNG).removed == 0
    assert left() == set()
    assert not list(empty_store.rglob(".removed"))


def test_a_folder_of_the_store_may_be_on_another_disk(empty_store: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == empty_store.parent.stat().st_dev:
        pytest.skip("this machine has no second file system at hand")
    with tempfile.TemporaryDirectory(dir=memory) as disk:
        empty_store.mkdir()
        (empty_store / "train_model").symlink_to(disk)
        write("train_model/a/card.md", age=31)
        assert collect(NOTHING_YOUNG).removed == 1
        assert os.listdir(disk) == []


def test_a_lock_that_is_a_day_old_goes_unless_it_is_held(empty_store: Path) -> None:
    with store.locked("held"), store.locked("young"):
        pass
    write(".locks/old.lock", age=2)
    with store.locked("held"):
        os.utime(empty_store / ".locks" / "held.lock", (NOW - 2 * DAY, NOW - 2 * DAY))
        collect(NOTHING_YOUNG, now=NOW)
    there = {file.stem for file in (empty_store / ".locks").iterdir()}
    assert {"held", "young"} <= there
    assert "old" not in there


def test_the_artifacts_of_every_step_can_be_collected() -> None:
    caches = [getattr(tasks, name).cache_policy for name in tasks.__all__]
    assert {cache.step for cache in caches if isinstance(cache, StoreCache)} <= set(STEPS)


def made(key: str) -> ModelRef:
    def build(folder: Path) -> ModelRef:
        (folder / "model.keras").write_text(key)
        return ModelRef(name="m", digest="d", parameters=1)

    return artifacts.make("train_model", key, ModelRef, build)


def test_whoever_begins_to_use_something_waits_until_it_is_decided(empty_store: Path) -> None:
    write("train_model/a/card.md", age=31)
    begun, record = threading.Event(), list[ModelRef]()

    def use() -> None:
        begun.set()
        record.append(made("a"))

    with uses.deciding(empty_store):
        user = threading.Thread(target=use)
        user.start()
        begun.wait()
        user.join(0.2)
        assert not record, "it must not find what is about to go"
        shutil.rmtree(empty_store / "train_model" / "a")
    user.join(30)
    collect(NOTHING_YOUNG)
    assert artifacts.check(store.path(record[0].folder)) == record[0]


@pytest.mark.process
def test_what_a_living_process_uses_stays_and_what_a_killed_one_used_goes(empty_store: Path) -> None:
    """The notes are of a process of its own, which the system must free from its lock."""
    started, told = os.pipe()
    if not (process := os.fork()):
        made("theirs")
        os.write(told, b".")
        signal.pause()
    os.read(started, 1)
    made("ours")
    collect(NOTHING_YOUNG)
    assert {path.split("/")[1] for path in left()} == {"theirs", "ours"}
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    collect(NOTHING_YOUNG)
    assert {path.split("/")[1] for path in left()} == {"ours"}
    assert len(list((empty_store / ".uses").iterdir())) <= 5, "the notes of the dead go too"


def test_the_card_shows_folders_models_and_ages(empty_store: Path) -> None:
    write_old()
    card = draw(collect(GcConfig(keep_runs=0), now=NOW))
    assert "| train_model | 2 | 14B | 2 | 14B |" in card
    assert f"| longer | {len(OLD)} |" in card
