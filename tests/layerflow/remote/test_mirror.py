"""Artifacts of one store that another one finds in the bucket, and endpoints that fail meanwhile."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from layerflow import artifacts, store, uses
from layerflow.collection.collect import collect
from layerflow.data import image_folder
from layerflow.errors import DamagedError, UnreachableError
from layerflow.parts import parts_of
from layerflow.records import DatasetRef, ModelRef, PackRef, Record
from layerflow.remote import mirror
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.gc import GcConfig
from tasks import caching
from tests.object_store import Enter, Proxy, lake

pytestmark = pytest.mark.process  # the S3 server is one: two stores see the same objects only there


def made(key: str = "k", text: str = "weights", anew: bool = False) -> ModelRef:
    def build(folder: Path) -> ModelRef:
        (folder / "deep").mkdir()
        (folder / "deep" / "model.keras").write_text(text)
        (folder / "card.md").write_text("a card")
        return ModelRef(name=text, digest=text, parameters=1)

    return artifacts.make("build_model", key, ModelRef, build, {}, anew)


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How often layerflow has warned so; Prefect's logger may repeat it."""
    said = [each for each in caplog.records if each.name.startswith("layerflow") and each.levelname == "WARNING"]
    return sum(text in each.getMessage() for each in said)


def kept(key: str = "k", text: str = "weights") -> ModelRef:
    record = made(key, text)
    mirror.keep(record.folder)
    return record


def test_another_store_finds_the_record_and_downloads_the_files_when_they_are_read(enter: Enter) -> None:
    record = kept()
    enter("b")
    found = mirror.find(record.folder, ModelRef)
    assert found
    assert found[0] == record
    assert not store.path(record.folder).exists(), "nothing has read it yet"
    mirror.bring(record.folder)
    artifacts.check_record(record)
    assert (store.path(record.folder) / "deep" / "model.keras").read_text() == "weights"
    assert mirror.bring(record.folder) is None, "it is here"


def photos(root: Path, numbers: range) -> Path:
    for number in numbers:
        file = root / "train" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    return root


def prepared(root: Path) -> DatasetRef:
    """The folder as the step prepares it."""
    image_folder.forget()
    config = DataConfig(name="folder", path=root, validation_fraction=0.3, test_fraction=0.3)
    return caching.make(tasks.load_data, config, DevicesConfig())


def test_an_empty_disk_decodes_and_uploads_only_images_that_are_new(
    enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, decoded = image_folder.decode.read, []
    monkeypatch.setattr(image_folder.decode, "read", lambda *of: (decoded.append(1), read(*of))[1])
    for night in range(3):
        enter(f"pod-{night}")
        decoded.clear()
        data = prepared(photos(tmp_path / "pets", range(40 + night)))
        artifacts.check_record(data)
        assert len(decoded) == (1 if night else 40)
    packs = [artifacts.record_in(store.path(part), PackRef) for part in parts_of(store.path(data.folder))]
    assert sorted(pack.rows for pack in packs if pack) == [1, 1, 40]
    assert len([name for name in lake().names("packs") if name.endswith("record.json")]) == 3


def test_damaged_packs_here_say_nothing_of_the_bucket(enter: Enter, tmp_path: Path) -> None:
    for night in range(3):
        data = prepared(photos(tmp_path / "pets", range(40 + night)))
    for part in parts_of(store.path(data.folder)):
        (store.path(part) / "images.npy").write_bytes(b"damaged")
    shutil.rmtree(store.path(data.folder))
    mirror.bring(data.folder)
    artifacts.check_record(data)


def test_packs_that_the_bucket_lost_are_uploaded_again(enter: Enter, tmp_path: Path) -> None:
    prepared(photos(tmp_path / "pets", range(40)))
    lake().delete([f"packs/{name}" for name in lake().names("packs")])
    data = prepared(photos(tmp_path / "pets", range(41)))
    enter("b")
    mirror.bring(data.folder)
    artifacts.check_record(data)


def test_the_record_is_uploaded_last(enter: Enter, endpoint: Proxy) -> None:
    kept()
    written = [each for each in endpoint.requests if each.startswith("PUT")]
    assert len(written) == 3
    assert written[-1].endswith("/build_model/k/record.json")


def test_what_was_uploaded_is_not_asked_about_again(enter: Enter, endpoint: Proxy) -> None:
    record = kept()
    before = len(endpoint.requests)
    mirror.keep(record.folder)
    assert len(endpoint.requests) == before


def test_only_listed_files_are_uploaded(enter: Enter) -> None:
    record = made()
    (store.path(record.folder) / "result.json").write_text("Prefect's, with a path of this machine")
    mirror.keep(record.folder)
    assert not [name for name in lake().names("build_model/k") if "result" in name]


def test_two_machines_that_make_the_same_key_do_not_mix_their_files(enter: Enter) -> None:
    first = kept(text="first")
    enter("b")
    second = made(text="other")
    mirror.keep(second.folder)
    assert second != first
    enter("c")
    found = mirror.find("build_model/k", ModelRef)
    assert found
    assert found[0] == first
    mirror.bring(first.folder)
    artifacts.check_record(first)


def test_an_artifact_that_was_made_anew_takes_the_place_of_the_one_in_the_bucket(enter: Enter) -> None:
    kept()
    record = made(text="better", anew=True)
    mirror.keep(record.folder, anew=True)
    enter("b")
    found = mirror.find(record.folder, ModelRef)
    assert found
    assert found[0] == record


@pytest.mark.parametrize("kind", ["503", "403", "reset", "lost answer"])
def test_an_upload_that_fails_is_a_warning_and_is_made_good_later(
    enter: Enter, endpoint: Proxy, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    endpoint.fail(kind, "PUT .*")  # type: ignore[arg-type]
    first = kept("k1")
    assert warnings(caplog, "uploads later") == 1
    assert mirror.pending() == {first.folder}
    endpoint.heal()
    kept("k2")
    assert mirror.pending() == set()
    enter("b")
    assert mirror.find("build_model/k1", ModelRef)
    assert mirror.find("build_model/k2", ModelRef)


def test_an_endpoint_that_vanishes_in_the_middle_leaves_no_record(enter: Enter, endpoint: Proxy) -> None:
    endpoint.fail("reset", "PUT .*/record.json")
    record = kept()
    assert mirror.pending() == {record.folder}
    assert artifacts.sound(store.path(record.folder)), "nothing local is lost"
    enter("b")
    assert mirror.find(record.folder, ModelRef) is None


def test_the_next_run_uploads_what_is_pending(enter: Enter, endpoint: Proxy) -> None:
    endpoint.fail("503")
    kept()
    endpoint.heal()
    mirror.flush()
    assert mirror.pending() == set()


def test_a_bucket_that_is_away_is_not_waited_for_at_every_step(
    enter: Enter, endpoint: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror, "AWAY_SECONDS", 60)
    endpoint.fail("503")
    kept("k1")
    before = len(endpoint.requests)
    kept("k2")
    assert mirror.find("build_model/k3", ModelRef) is None
    assert len(endpoint.requests) == before
    assert warnings(caplog, "goes on without it") == 1


def test_what_was_collected_before_it_was_uploaded_is_forgotten(enter: Enter, endpoint: Proxy) -> None:
    endpoint.fail("503")
    record = kept()
    shutil.rmtree(store.path(record.folder))
    endpoint.heal()
    mirror.flush()
    assert mirror.pending() == set()


def test_a_step_whose_input_can_not_be_downloaded_says_so_and_can_be_retried(enter: Enter, endpoint: Proxy) -> None:
    record = kept()
    enter("b")
    endpoint.fail("reset", "GET .*keras")
    with pytest.raises(UnreachableError, match=r"read build_model/k/.*, and the connection broke"):
        mirror.bring(record.folder)
    endpoint.heal()
    mirror.bring(record.folder)
    artifacts.check_record(record)


def test_a_file_that_was_changed_in_the_bucket_is_never_used(enter: Enter) -> None:
    record = kept()
    (name,) = [name for name in lake().names("build_model/k") if name.endswith(".keras")]
    lake().put(f"build_model/k/{name}", b"evil")
    enter("b")
    with pytest.raises(DamagedError, match=r"deep/model.keras .* its record was removed there. Re-run"):
        mirror.bring(record.folder)
    assert not store.path(record.folder).exists()
    assert list((store.root() / "build_model").glob(".*")) == []
    assert mirror.find(record.folder, ModelRef) is None, "the next run makes it again"


@pytest.mark.parametrize("name", ["../../../stolen", "/stolen", "record.json", "result.json", "a\0b"])
def test_a_record_that_names_files_elsewhere_is_refused(enter: Enter, tmp_path: Path, name: str) -> None:
    record = kept()
    content = json.loads((store.path(record.folder) / "record.json").read_text())
    content.pop("digest")
    content["files"] = {name: "0" * 64}
    forged = json.dumps({**content, "digest": artifacts._digest(content)}).encode()
    lake().put("build_model/k/record.json", forged)
    enter("b")
    with pytest.raises(DamagedError, match="outside of its folder"):
        mirror.bring(record.folder)
    assert not list(tmp_path.rglob("stolen"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"kind": "x"}', b"[" * 100_000])
def test_what_is_no_record_counts_as_none(enter: Enter, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    lake().put("build_model/k/record.json", content)
    assert mirror.find("build_model/k", ModelRef) is None
    assert "no record of this layerflow" in caplog.text


def test_a_record_of_another_step_is_not_taken(enter: Enter) -> None:
    kept("k1")
    found = lake().get("build_model/k1/record.json")
    assert found
    lake().put("build_model/k2/record.json", found.content)
    enter("b")
    assert mirror.find("build_model/k2", ModelRef) is None


def test_parts_that_artifacts_share_come_and_go_with_them(enter: Enter) -> None:
    pack = f"packs/{'0' * 32}"

    def pack_images(folder: Path) -> Record:
        (folder / "images.npy").write_text("pixels")
        return ModelRef(name="pack", digest="pack", parameters=1)

    def list_packs(folder: Path) -> ModelRef:
        (folder / "parts.json").write_text(json.dumps([pack]))
        return ModelRef(name="data", digest="data", parameters=1)

    artifacts.make("packs", "0" * 32, Record, pack_images)
    record = artifacts.make("build_model", "k", ModelRef, list_packs)
    mirror.keep(record.folder)
    enter("b")
    assert mirror.find(record.folder, ModelRef)
    mirror.bring(record.folder)
    assert (store.path(pack) / "images.npy").read_text() == "pixels"


def test_a_record_can_not_bring_what_is_no_artifact(enter: Enter, endpoint: Proxy) -> None:
    for folder in ("", "../x/y", "build_model", "build_model/.hidden", ".remote/x", "a/b/c"):
        assert mirror.bring(folder) is None
    assert endpoint.requests == []


def test_without_the_variable_nothing_is_asked_or_written(
    enter: Enter, endpoint: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAYERFLOW_REMOTE")
    record = kept()
    mirror.flush()
    assert mirror.find(record.folder, ModelRef) is None
    assert mirror.bring(record.folder) is None
    assert endpoint.requests == []
    assert not (store.root() / ".remote").exists()


def end_of_this_process() -> None:
    """It uses nothing any more, as far as a collection knows."""
    assert uses._mine
    uses._mine.end()
    uses._mine = None


def test_a_collection_keeps_what_must_be_uploaded_and_forgets_old_notes(enter: Enter, endpoint: Proxy) -> None:
    old = kept("k1")
    endpoint.fail("503")
    record = kept("k2")
    endpoint.heal()
    end_of_this_process()
    collect(GcConfig(), now=time.time() + 100 * 24 * 3600)
    assert mirror.pending() == {record.folder}
    assert store.path(record.folder).is_dir()
    assert not store.path(old.folder).exists()
    before = len(endpoint.requests)
    mirror.keep(old.folder)
    assert len(endpoint.requests) > before, "the note that it was uploaded is forgotten"
