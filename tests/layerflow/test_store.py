"""The store: whole or absent, damaged never used, one at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layerflow import store
from layerflow.errors import DamagedError, StoreError
from layerflow.records import ModelRef, Record


def record() -> ModelRef:
    return ModelRef(name="m", digest="d", parameters=1)


def make(content: str = "bytes") -> ModelRef:
    def build(folder: Path) -> ModelRef:
        (folder / "file").write_text(content)
        return record()

    return store.make("step", "key", ModelRef, build)


def test_what_was_made_is_not_made_again(empty_store: Path) -> None:
    first = make("first")
    assert make("second") == first
    assert (store.path(first.folder) / "file").read_text() == "first"


def test_a_deleted_folder_is_made_again(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    make("second")
    assert (folder / "file").read_text() == "second"


def test_a_build_that_fails_leaves_nothing_that_counts(empty_store: Path) -> None:
    def fail(folder: Path) -> ModelRef:
        (folder / "half").write_text("")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        store.make("step", "key", ModelRef, fail)
    assert not store.folder_of("step", "key").exists()
    make()
    assert not (store.folder_of("step", "key") / "half").exists(), "the next build starts from an empty folder"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted", "no record", "record is no json"])
def test_a_damaged_artifact_is_named_set_aside_and_made_again(empty_store: Path, damage: str) -> None:
    folder = store.path(make("first").folder)
    file = folder / ("record.json" if "record" in damage else "file")
    if damage in ("deleted", "no record"):
        file.unlink()
    else:
        file.write_text({"flipped": "fIrst", "truncated": "fir", "record is no json": "{"}[damage])
    with pytest.raises(DamagedError, match="is not as it was stored; the folder was set aside"):
        store.check(folder)
    make("second")
    assert (folder / "file").read_text() == "second"
    assert len(list(folder.parent.glob(".damaged-*"))) == 1


def test_a_cut_off_record_of_prefect_alone_does_not_cost_the_artifact(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    (folder / "result.json").write_text('{"result": ')
    assert store.sound(folder)
    assert not (folder / "result.json").exists()
    assert (folder / "file").read_text() == "first"


def test_two_processes_that_want_the_same_key_make_it_once(empty_store: Path) -> None:
    script = """
import sys, time
from layerflow import store
from layerflow.records import ModelRef
def build(folder):
    with open(store.root() / "builds", "a") as log: log.write("built\\n")
    time.sleep(0.5)
    return ModelRef(name="m", digest="d", parameters=1)
store.make("step", "key", ModelRef, build)
"""
    empty_store.mkdir()
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (empty_store / "builds").read_text() == "built\n"


def test_the_lock_of_a_killed_process_is_free(empty_store: Path) -> None:
    script = """
import sys, time
from layerflow import store
with store.locked("x"):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with store.locked("x"):
        pass


def test_a_store_that_is_moved_keeps_its_records(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("first")
    moved = empty_store.rename(empty_store.with_name("moved"))
    monkeypatch.setenv("LAYERFLOW_STORE", str(moved))
    assert make("second") == made
    assert store.path(made.folder).is_relative_to(moved)


def test_a_store_that_can_not_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match="must be a folder that can be written"):
        store.ensure_writable()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    store.write_atomically(file, b"old")

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        store.write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_record_lists_the_digest_of_every_file(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    content = json.loads((folder / "record.json").read_text())
    assert content["files"] == {"file": store.sha256(folder / "file")}


def test_a_step_that_fails_leaves_nothing_on_a_disk_that_may_be_full(empty_store: Path) -> None:
    def fill(folder: Path) -> Record:
        (folder / "half").write_bytes(b"x" * 1000)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.make("load_data", "key", Record, fill)
    assert [*(empty_store / "load_data").iterdir()] == []
