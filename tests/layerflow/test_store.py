"""The store: whole or absent, damaged never used, one at a time."""

import contextlib
import errno
import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.serializers import JSONSerializer

from layerflow import artifacts, checksums, store
from layerflow.errors import DamagedError, StoreError
from layerflow.records import DatasetRef, ModelRef, Record
from tests import forked


def record() -> ModelRef:
    return ModelRef(name="m", digest="d", parameters=1)


def make(content: str = "bytes") -> ModelRef:
    def build(folder: Path) -> ModelRef:
        (folder / "file").write_text(content)
        return record()

    return artifacts.make("step", "key", ModelRef, build)


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
        artifacts.make("step", "key", ModelRef, fail)
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
        artifacts.check(folder)
    make("second")
    assert (folder / "file").read_text() == "second"
    assert len(list(folder.parent.glob(".damaged-*"))) == 1


def test_a_cut_off_record_of_prefect_alone_does_not_cost_the_artifact(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    (folder / "result.json").write_text('{"result": ')
    assert artifacts.sound(folder)
    assert not (folder / "result.json").exists()
    assert (folder / "file").read_text() == "first"


@pytest.mark.process
def test_two_processes_that_want_the_same_key_make_it_once(empty_store: Path) -> None:
    """In processes of their own: a lock keeps processes apart."""
    empty_store.mkdir()
    processes = [forked.Popen([sys.executable, forked.PROGRAMS / "makes_one_artifact.py"]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (empty_store / "builds").read_text() == "built\n"


@pytest.mark.process
def test_the_lock_of_a_killed_process_is_free(empty_store: Path) -> None:
    """In a process of its own, since it is killed."""
    holder = forked.Popen([sys.executable, forked.PROGRAMS / "holds_a_lock.py"], stdout=forked.PIPE, text=True)
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
    store.write_atomically(file, b"o", b"ld")

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
    assert content["files"] == {"file": checksums.sha256(folder / "file")}


def stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


SHAPES = {
    "truncated": '{"record": {"folder"',
    "empty": "",
    "null": "null",
    "a list": "[]",
    "a number": "7",
    "no record": '{"files": {}}',
    "files of another type": '{"record": {}, "files": 7, "digest": "x"}',
    "deep": "[" * 100_000,
    "no text": "\udcff",
}


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """No file can be opened here, as in a process that has too many open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("ask", ["find", "check"])
def test_an_artifact_that_can_not_be_opened_just_now_is_not_damaged(empty_store: Path, ask: str) -> None:
    folder = store.path(make("first").folder)
    result = write_result(folder, stored(folder)["record"])
    with no_more_files():
        try:
            artifacts.find("step", "key", ModelRef) if ask == "find" else artifacts.check(folder)
            found: OSError | None = None
        except OSError as error:
            found = error
    assert found is not None
    assert found.errno == errno.EMFILE
    assert result.exists()
    assert make("second").folder == "step/key"
    assert (folder / "file").read_text() == "first"
    assert not list(folder.parent.glob(".damaged-*"))


def test_who_only_looks_sets_nothing_aside(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    write_result(folder, stored(folder)["record"])
    (folder / "record.json").write_text("{")
    assert artifacts.find("step", "key", ModelRef) is None
    assert folder.exists(), "it does not hold the step's lock"


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("ask", ["find", "check", "make"])
def test_a_record_of_any_shape_is_set_aside_and_made_again(empty_store: Path, content: str, ask: str) -> None:
    folder = store.path(make("first").folder)
    write_result(folder, stored(folder)["record"])
    (folder / "record.json").write_bytes(content.encode(errors="surrogateescape"))
    if ask == "find":
        assert artifacts.find("step", "key", ModelRef) is None
    elif ask == "check":
        assert not artifacts.sound(folder)
    make("second")
    assert (folder / "file").read_text() == "second"
    assert len(list(folder.parent.glob(".damaged-*"))) == 1


def change_a_figure(content: dict[str, Any]) -> None:
    content["record"]["parameters"] = 2


def forget_a_file(content: dict[str, Any]) -> None:
    del content["files"]["file"]


def lose_the_digest(content: dict[str, Any]) -> None:
    del content["digest"]


def name_another_folder(content: dict[str, Any]) -> None:
    content["record"]["folder"] = "step/other"
    seal(content)


def name_a_folder_outside(content: dict[str, Any]) -> None:
    content["record"]["folder"] = "../step/key"
    seal(content)


def name_a_file_outside(content: dict[str, Any]) -> None:
    outside = store.root().parent / "outside"
    outside.write_text("")
    content["files"]["../../../outside"] = checksums.sha256(outside)
    seal(content)


def name_another_kind(content: dict[str, Any]) -> None:
    content["kind"] = "os.system"
    seal(content)


def seal(content: dict[str, Any]) -> None:
    """Give a changed record the digest that it would have, as whoever reads the code can."""
    del content["digest"]
    content["digest"] = artifacts._digest(content)


@pytest.mark.parametrize(
    "change",
    [
        change_a_figure,
        forget_a_file,
        lose_the_digest,
        name_another_folder,
        name_a_folder_outside,
        name_a_file_outside,
        name_another_kind,
    ],
)
def test_a_record_that_was_edited_is_not_believed(empty_store: Path, change: Callable[[dict[str, Any]], None]) -> None:
    folder = store.path(make("first").folder)
    content = stored(folder)
    change(content)
    (folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"record\.json in .* is not as it was stored"):
        artifacts.check(folder)


def write_result(folder: Path, record: dict[str, Any], **changes: Any) -> Path:
    """Prefect's record of the step's result, as Prefect writes it."""
    metadata = {"storage_key": str(folder / "result.json"), "serializer": JSONSerializer().model_dump()}
    value = json.dumps({"__class__": "layerflow.records.ModelRef", "data": record})
    file = folder / "result.json"
    file.write_text(json.dumps({"metadata": metadata, "result": value} | changes))
    return file


def test_prefects_record_is_kept_where_it_agrees(empty_store: Path) -> None:
    folder = store.path(make("first").folder)
    file = write_result(folder, stored(folder)["record"])
    assert artifacts.sound(folder)
    assert artifacts.find("step", "key", ModelRef) == make()
    assert file.exists()


def another_value(record: dict[str, Any]) -> dict[str, Any]:
    return {"result": json.dumps({"__class__": "layerflow.records.ModelRef", "data": record | {"parameters": 2}})}


def another_class(record: dict[str, Any]) -> dict[str, Any]:
    return {"result": json.dumps({"__class__": "os.system", "data": record})}


def an_exception(record: dict[str, Any]) -> dict[str, Any]:
    return {"result": json.dumps({"__exc_type__": "builtins.SystemExit", "message": "0"})}


def a_pickle(record: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"serializer": {"type": "pickle"}}}


def a_decoder_of_its_own(record: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"serializer": JSONSerializer(object_decoder="os.system").model_dump()}}


def two_values(record: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps({"__class__": "layerflow.records.ModelRef", "data": record})
    return {"result": text[:-1] + ', "data": {}}'}


@pytest.mark.parametrize(
    "forge", [another_value, another_class, an_exception, a_pickle, a_decoder_of_its_own, two_values]
)
@pytest.mark.parametrize("ask", ["sound", "find"])
def test_a_forged_record_of_prefect_is_removed_before_prefect_reads_it(
    empty_store: Path, forge: Callable[[dict[str, Any]], dict[str, Any]], ask: str
) -> None:
    folder = store.path(make("first").folder)
    record = stored(folder)["record"]
    file = write_result(folder, record, **forge(record))
    if ask == "sound":
        assert artifacts.sound(folder), "ours is whole"
    else:
        assert artifacts.find("step", "key", ModelRef) is None
    assert not file.exists()
    assert make("second").parameters == 1


def test_a_step_takes_no_record_that_is_not_the_stored_one(empty_store: Path) -> None:
    made = make("first")
    artifacts.check_record(made)
    with pytest.raises(DamagedError, match=r"must be the one in its record\.json"):
        artifacts.check_record(made.model_copy(update={"parameters": 2}))


def test_a_folder_that_somebody_deletes_in_mid_run_is_one_sentence(empty_store: Path) -> None:
    made = make("first")
    folder = store.path(made.folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DamagedError, match=r"must hold what an earlier step made; it is gone. Re-run the command"):
        artifacts.check_record(made)


@pytest.mark.parametrize("outside", ["../x", "step/../../x", "/etc/passwd"])
def test_a_path_outside_the_store_is_refused(empty_store: Path, outside: str) -> None:
    with pytest.raises(DamagedError, match="must name a path inside the store"):
        store.path(outside)


def test_classes_and_contents_are_bound_by_the_digest_of_the_data(empty_store: Path) -> None:
    def build(folder: Path) -> DatasetRef:
        for name in ("test_images.npy", "test_labels.npy"):
            (folder / name).write_text(name)
        digest, test_digest = DatasetRef.digests_of(checksums.digests(folder), ("cat", "dog"))
        facts = {"name": "d", "version": "1", "image_shape": (1, 1, 1), "counts": {}, "broken": 0}
        rules = {"image_rule": "", "split_rule": ""}
        return DatasetRef(digest=digest, test_digest=test_digest, classes=("cat", "dog"), **facts, **rules)

    made = artifacts.make("load_data", "key", DatasetRef, build)
    folder = store.path(made.folder)
    assert artifacts.check(folder) == made
    content = stored(folder)
    content["record"]["classes"].reverse()
    seal(content)
    (folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"record\.json in"):
        artifacts.check(folder)


@pytest.mark.parametrize(("wrong", "said"), [(".locks", "It is a file"), (".locks/step-key.lock", "It is a folder")])
def test_a_lock_that_can_not_be_one_is_one_sentence(empty_store: Path, wrong: str, said: str) -> None:
    empty_store.mkdir()
    if said == "It is a file":
        (empty_store / wrong).write_text("")
    else:
        (empty_store / wrong).mkdir(parents=True)
    with pytest.raises(StoreError, match=f"{said}; delete it and re-run the command"):
        make()


@pytest.mark.parametrize(
    ("place", "reason"),
    [("~nobody-at-all/x", "names a user who doesn't exist"), ("/tmp/\udcff", "must be text in UTF-8")],
)
def test_a_store_that_can_not_be_named_is_one_sentence(
    place: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERFLOW_STORE", place)
    with pytest.raises(StoreError, match=reason) as caught:
        store.ensure_writable()
    assert str(caught.value).isprintable()


def test_a_step_that_fails_leaves_nothing_on_a_disk_that_may_be_full(empty_store: Path) -> None:
    def fill(folder: Path) -> Record:
        (folder / "half").write_bytes(b"x" * 1000)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        artifacts.make("load_data", "key", Record, fill)
    assert [*(empty_store / "load_data").iterdir()] == []
