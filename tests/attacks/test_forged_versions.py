"""Forged, stray and unreadable versions: what the registry believes of a folder below ``models/``.

The exports are small made-up files: the registry compares digests and never opens a network.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.models import check_versions
from layerflow import checksums, store
from layerflow.checksums import EXTRA
from layerflow.errors import DamagedError, RegistryError, VerificationError
from layerflow.export import verification
from layerflow.registry import layout, publishing, versions
from layerflow.registry import receipt as receipts
from layerflow.registry.ledger import read_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.rollback import roll_back, target_of
from tests.command import layerflow

NAME = "mlp-digits"
LEDGER, COPY = ".ledger.json", ".ledger.json.bak"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    """A store of the test's own; the made-up networks can't be loaded, so the verifying process is left out."""
    monkeypatch.setattr(verification, "inspect", lambda folder, verifier: {})


def export(label: str, classes: tuple[str, ...] = ("cat", "dog")) -> tuple[Path, dict[str, str]]:
    """A folder with the files of an export, and their digests."""
    folder = store.root() / "exports" / label
    (folder / EXTRA).mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_text(f"the network {label}")
    (folder / EXTRA / "golden.npz").write_text(f"the answers of {label}")
    contract = {"image_shape": [8, 8, 1], "classes": classes}
    (folder / EXTRA / "contract.json").write_text(json.dumps(contract))
    return folder, checksums.write_digests(folder)


def receipt_for(label: str, version: int, files: dict[str, str]) -> dict[str, Any]:
    return {
        "name": NAME,
        "version": version,
        "created": "2026-11-24T03:00:00+00:00",
        "export": {"digest": files[checksums.DIGESTS], "files": files},
        "evaluation": {"accuracy": 0.9, "test_digest": "test"},
        "data": {"name": "pets", "digest": "data", "classes": ["cat", "dog"], "image_shape": [8, 8, 1]},
        "trained": {"digest": label},
        "decision": {"code": "promoted_better"},
    }


def publish(label: str) -> Path:
    """Publish a made-up model under the next number, and return its folder."""
    source, files = export(label)
    with store.locked(f"models-{NAME}"):
        version = publishing.next_version(NAME)
        return publishing.publish(NAME, version, source, receipt_for(label, version, files))


def write_receipt(folder: Path, receipt: dict[str, Any]) -> None:
    """Replace a version's receipt, and make its list of digests agree."""
    (folder / layout.RECEIPT).write_text(json.dumps(receipt))
    checksums.write_digests(folder)


def receipt_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / layout.RECEIPT).read_text())


def leave_the_receipt(folder: Path) -> None:
    """Another network with other classes and golden answers; only the receipt stays."""
    other, _ = export("forged", ("dog", "cat"))
    shutil.copytree(other, folder, dirs_exist_ok=True)
    checksums.write_digests(folder)


def forge_the_receipt(folder: Path) -> None:
    """Another network, and a receipt that agrees with it: the folder is consistent in itself."""
    other, files = export("forged")
    forged = receipt_for("forged", int(folder.name), files)
    shutil.copytree(other, folder, dirs_exist_ok=True)
    write_receipt(folder, forged)


def swap_the_classes_in_the_receipt(folder: Path) -> None:
    receipt = receipt_in(folder)
    receipt["data"]["classes"].reverse()
    write_receipt(folder, receipt)


def raise_the_temperature_in_the_receipt(folder: Path) -> None:
    receipt = receipt_in(folder)
    receipt["evaluation"]["serving"] = {"temperature": 2.0}
    write_receipt(folder, receipt)


FORGERIES = [
    *(leave_the_receipt, forge_the_receipt, swap_the_classes_in_the_receipt),
    raise_the_temperature_in_the_receipt,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_version_is_neither_as_published_nor_restored(forge: Callable[[Path], None]) -> None:
    folder = publish("one")
    publish("two")
    assert [versions.damage(NAME, version) for version in (1, 2)] == [None, None]
    forge(folder)
    assert checksums.damage(folder) is None, "its files vouch for each other"
    assert versions.damage(NAME, 1)
    before = read_ledger(NAME)
    with pytest.raises(VerificationError, match="Version 1 of mlp-digits must be as it was published"):
        roll_back(NAME, to=1)
    assert versions.numbers(NAME) == [2, 1]
    assert read_ledger(NAME) == before


@pytest.mark.parametrize("forge", [leave_the_receipt, swap_the_classes_in_the_receipt])
def test_a_copied_folder_is_compared_with_its_own_receipt(forge: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "copied" / "1"
    shutil.copytree(publish("one"), folder)
    assert "vouch only for each other" in versions.provenance(folder)
    forge(folder)
    with pytest.raises(VerificationError, match="receipt"):
        versions.provenance(folder)


def test_a_consistent_forgery_is_found_by_the_ledger_beside_it_and_only_by_that(tmp_path: Path) -> None:
    folder = publish("one")
    assert "the ledger" in versions.provenance(folder)
    forge_the_receipt(folder)
    with pytest.raises(VerificationError, match="is not the list that was published"):
        versions.provenance(folder)
    alone = tmp_path / "1"
    shutil.copytree(folder, alone)
    assert "vouch only for each other" in versions.provenance(alone)


def test_an_export_without_a_receipt_says_so() -> None:
    folder, _ = export("one")
    assert "no receipt" in versions.provenance(folder)


def test_the_ledger_has_the_digests_before_the_version_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def rename(folder: Path, target: Path) -> Path:
        if folder.parent.name.startswith(".staging-"):
            seen[target.name] = read_ledger(NAME).published, checksums.sha256(folder / checksums.DIGESTS)
        os.rename(folder, target)
        return target

    monkeypatch.setattr(Path, "rename", rename)
    publish("one")
    published, sums = seen["1"]
    assert published
    assert published[1].sums == sums


def test_what_is_pruned_leaves_the_ledger() -> None:
    for label in ("one", "two", "three"):
        publish(label)
    publishing.prune(NAME, keep=1)
    assert versions.numbers(NAME) == [3, 2]
    assert sorted(read_ledger(NAME).published or {}) == [2, 3]


def test_a_stray_folder_is_no_version_and_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    publish("one")
    folder = publish("two")
    shutil.copytree(folder, layout.home(NAME) / "99")
    assert versions.numbers(NAME) == [2, 1]
    assert versions.champion_of(NAME) == 2
    (told,) = versions.complaints(NAME)
    assert "99 is not a version" in told
    assert "a server that follows the highest number serves it" in told
    assert publishing.next_version(NAME) == 100, "no number is given twice"
    with pytest.raises(RegistryError, match="99 is not a version"):
        target_of(NAME)
    with pytest.raises(VerificationError, match="99 is not a version"):
        versions.provenance(layout.home(NAME) / "99")
    assert publish("three").name == "100"
    assert target_of(NAME) == (100, 2), "the stray folder is no longer the highest"


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 200])
def test_a_number_that_no_server_reads_takes_none(number: str) -> None:
    publish("one")
    (layout.home(NAME) / number).mkdir()
    assert publishing.next_version(NAME) == 2


def as_an_earlier_layerflow_left_it() -> None:
    """The ledger of a store in which the digests of the versions were not kept."""
    ledger = read_ledger(NAME)
    (layout.home(NAME) / COPY).unlink()
    content = {"highest": ledger.highest, "rolled_back": ledger.rolled_back}
    (layout.home(NAME) / LEDGER).write_text(json.dumps(content))


def test_an_older_store_keeps_its_versions_and_gets_their_digests_with_the_next_one() -> None:
    for label in ("one", "two"):
        publish(label)
    as_an_earlier_layerflow_left_it()
    shutil.copytree(layout.home(NAME) / "2", layout.home(NAME) / "99")  # its receipt names version 2
    assert versions.numbers(NAME) == [2, 1]
    assert "99 is not a version" in versions.complaints(NAME)[0]
    assert [versions.damage(NAME, version) for version in (1, 2)] == [None, None]
    shutil.rmtree(layout.home(NAME) / "99")
    publish("three")
    assert versions.numbers(NAME) == [3, 2, 1]
    forge_the_receipt(layout.home(NAME) / "1")
    assert versions.damage(NAME, 1)


def test_of_a_ledger_without_digests_both_commands_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish("one")
    as_an_earlier_layerflow_left_it()
    assert "no digest of it in a ledger" in versions.provenance(folder)
    check_versions(NAME)
    assert "every byte matches its own list; no ledger has a digest of it" in capsys.readouterr().out


def test_a_version_is_read_once_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    publish("one")
    read: list[Path] = []
    digest = checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda file: (read.append(file), digest(file))[1])
    assert versions.damage(NAME, 1) is None
    assert [file.name for file in read].count("saved_model.pb") == 1


def test_versions_without_any_ledger_are_known_by_their_receipts() -> None:
    for label in ("one", "two"):
        publish(label)
    for name in (LEDGER, COPY):
        (layout.home(NAME) / name).unlink()
    (layout.home(NAME) / "7").mkdir()
    assert versions.numbers(NAME) == [2, 1]
    lost, stray = versions.complaints(NAME)
    assert "restore it from a backup" in lost
    assert "7 is not a version" in stray


UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "no keys": b"{}",
    "not UTF-8": b'{"name": "\xff"}',
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 500 + b"1" + b"}" * 500,
    "huge number": b'{"version": ' + b"9" * 5000 + b"}",
}


def wrong(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def harm(receipt: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            receipt = receipt[parent]
        if value is KeyError:
            del receipt[last]
        else:
            receipt[last] = value

    return harm


HARMS = [
    *((path, KeyError) for path in ("export", "export.files", "evaluation.accuracy", "data.name", "data.digest")),
    *((path, None) for path in ("export", "export.digest", "evaluation", "data.classes", "trained", "decision")),
    ("evaluation.accuracy", "0.99"),
    ("evaluation.accuracy", float("nan")),
    ("evaluation.accuracy", 7),
    ("evaluation.serving", None),
    ("evaluation.serving", {"temperature": "1.5"}),
    ("evaluation.serving", {"temperature": 0}),
    ("evaluation.serving", {"temperature": float("inf")}),
    ("evaluation.serving", {"threshold": True}),
    ("evaluation.serving", {"threshold": float("nan")}),
    ("evaluation.serving", {"softmax": 1.0}),
    ("data.classes", "cat"),
    ("data.name", "\ud800"),
    ("export.files", ["saved_model.pb"]),
    ("created", 5),
    ("version", 2),
    ("version", True),
    ("model", None),
    ("flow_run", "\ud800"),
]


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_receipt_that_can_not_be_read_is_none(content: bytes) -> None:
    folder = publish("one")
    (folder / layout.RECEIPT).write_bytes(content)
    assert versions.receipt_of(NAME, 1) is None
    assert versions.numbers(NAME) == [1]
    assert versions.profile_in_service(NAME, "other") is None


@pytest.mark.parametrize(("path", "value"), HARMS)
def test_a_receipt_with_a_key_that_is_missing_or_of_another_type_is_none(path: str, value: object) -> None:
    folder = publish("one")
    receipt = receipt_in(folder)
    wrong(path, value)(receipt)
    (folder / layout.RECEIPT).write_text(json.dumps(receipt))
    assert versions.receipt_of(NAME, 1) is None


@pytest.mark.parametrize("serving", [{"temperature": 1.5}, {"threshold": 0.5}, {"temperature": 1.5, "threshold": 0.5}])
def test_temperature_and_threshold_make_another_model_and_the_defaults_make_none(serving: dict[str, float]) -> None:
    receipt = receipt_in(publish("one"))
    as_ever = hashlib.sha256(json.dumps(["one", "cat", "dog"]).encode()).hexdigest()
    assert model_identity(receipt) == as_ever
    receipt["evaluation"]["serving"] = {"temperature": 1.0, "threshold": None}
    assert model_identity(receipt) == as_ever
    receipt["evaluation"]["serving"] |= serving
    assert model_identity(receipt) != as_ever


@pytest.mark.parametrize("name", ["temperature", "threshold"])
def test_a_contract_that_tells_of_another_temperature_or_threshold_than_the_receipt_is_damage(name: str) -> None:
    source, _ = export("one")
    contract = json.loads((source / EXTRA / "contract.json").read_text())
    (source / EXTRA / "contract.json").write_text(json.dumps(contract | {name: 0.5}))
    files = checksums.write_digests(source)
    receipt = receipt_for("one", 1, files)
    receipt["evaluation"]["serving"] = {name: 0.5}
    with store.locked(f"models-{NAME}"):
        folder = publishing.publish(NAME, publishing.next_version(NAME), source, receipt)
    assert versions.damage(NAME, 1) is None
    receipt["evaluation"]["serving"] = {name: 0.25}
    write_receipt(folder, receipt)
    assert receipts.damage(folder) == "the temperature or the threshold in contract.json is not that in the receipt"


def test_a_receipt_of_absurd_size_is_not_read() -> None:
    folder = publish("one")
    with (folder / layout.RECEIPT).open("wb") as stream:
        stream.truncate(2**30)  # sparse: takes no room
    assert versions.receipt_of(NAME, 1) is None


def test_a_model_is_known_by_the_ledger_when_its_receipt_is_lost() -> None:
    publish("one")
    bad = model_identity(receipt_in(publish("two")))
    (layout.home(NAME) / "2" / layout.RECEIPT).write_text("no receipt")
    assert roll_back(NAME).restored == 1
    assert read_ledger(NAME).rolled_back == (bad,), "the next run must not publish it again"


def test_a_model_that_nothing_identifies_is_not_rolled_back_silently() -> None:
    publish("one")
    publish("two")
    as_an_earlier_layerflow_left_it()
    (layout.home(NAME) / "2" / layout.RECEIPT).write_text("no receipt")
    with pytest.raises(RegistryError, match="would publish it again"):
        roll_back(NAME)
    assert versions.numbers(NAME) == [2, 1]


def test_a_receipt_that_claims_to_be_of_another_model_does_not_hide_the_bad_one() -> None:
    publish("one")
    folder = publish("two")
    bad = model_identity(receipt_in(folder))
    receipt = receipt_in(folder)
    receipt["trained"]["digest"] = "innocent"
    write_receipt(folder, receipt)
    roll_back(NAME)
    assert read_ledger(NAME).rolled_back == (bad,)


BROKEN = [b"", b"{", b"null", b"[]", b'{"highest": "x"}', b'{"highest": -1}', b"\xff", b"[" * 100_000]
#: Valid, as an earlier layerflow wrote it: known as damaged only by the copy beside it, which has a digest.
EMPTIED = [b"{}", b'{"highest": 1}']


@pytest.mark.parametrize("content", [*BROKEN, *EMPTIED])
def test_a_damaged_ledger_is_restored_from_its_copy(content: bytes) -> None:
    publish("one")
    publish("two")
    roll_back(NAME)
    before = read_ledger(NAME)
    assert before.rolled_back
    (layout.home(NAME) / LEDGER).write_bytes(content)
    assert "its copy is used" in versions.complaints(NAME)[0]
    assert read_ledger(NAME) == before
    publish("three")
    assert versions.complaints(NAME) == []
    assert read_ledger(NAME).rolled_back == before.rolled_back


def test_a_ledger_that_was_removed_is_restored_from_its_copy() -> None:
    publish("one")
    before = read_ledger(NAME)
    (layout.home(NAME) / LEDGER).unlink()
    assert read_ledger(NAME) == before


def test_a_flipped_letter_in_the_ledger_is_noticed() -> None:
    publish("one")
    publish("two")
    roll_back(NAME)
    before = read_ledger(NAME)
    file = layout.home(NAME) / LEDGER
    (bad,) = before.rolled_back
    file.write_text(file.read_text().replace(f'"{bad}"', f'"{bad[::-1]}"', 1))
    assert read_ledger(NAME) == before


def overwrite(file: Path) -> None:
    file.write_text("{")


@pytest.mark.parametrize("lose", [overwrite, Path.unlink])
def test_with_ledger_and_copy_damaged_or_gone_nothing_is_published_and_the_rest_is_listed(
    lose: Callable[[Path], None],
) -> None:
    publish("one")
    publish("two")
    for name in (LEDGER, COPY):
        lose(layout.home(NAME) / name)
    assert versions.numbers(NAME) == [2, 1]
    (told,) = versions.complaints(NAME)
    assert "backup" in told
    assert "remove" not in told, "the list of rolled-back models must not be thrown away"
    for change in (lambda: publish("three"), lambda: roll_back(NAME), lambda: versions.champion_of(NAME)):
        with pytest.raises(DamagedError, match="backup"):
            change()
    assert versions.numbers(NAME) == [2, 1]


def test_a_rebuilt_ledger_keeps_numbers_and_rolled_back_models_out() -> None:
    publish("one")
    publish("two")
    roll_back(NAME)
    (bad,) = read_ledger(NAME).rolled_back
    (layout.home(NAME) / COPY).unlink()
    (layout.home(NAME) / LEDGER).write_text(json.dumps({"highest": 12, "rolled_back": [bad]}))
    assert versions.complaints(NAME) == []
    assert publish("three").name == "13"
    ledger = read_ledger(NAME)
    assert ledger.rolled_back == (bad,)
    assert sorted(ledger.published or {}) == [1, 2, 3, 13]


@pytest.mark.process
def test_the_listing_shows_the_rest_and_verify_counts_all_that_is_wrong() -> None:
    """Each command in a process of its own: exit status and streams are what is claimed."""
    publish("one")
    folder = publish("two")
    forge_the_receipt(publish("three"))
    (folder / layout.RECEIPT).write_text('{"version": 2}')
    (layout.home(NAME) / "99").mkdir()
    (layout.home(NAME) / LEDGER).write_text("null")
    listed = layerflow("models")
    assert listed.returncode == 0, listed.stderr
    assert [row for row in listed.stdout.splitlines() if "receipt can't be read" in row and NAME in row]
    assert listed.stdout.count(NAME) == 3
    assert "99 is not a version" in listed.stderr
    assert "its copy is used" in listed.stderr
    rows = json.loads(layerflow("models", "--json").stdout)
    assert [(row["version"], row["accuracy"]) for row in rows] == [(3, 0.9), (2, None), (1, 0.9)]
    checked = layerflow("models", "verify")
    assert checked.returncode == 1
    assert f"{NAME} 3: assets.extra/SHA256SUMS is not the list that was published" in checked.stdout
    assert f"{NAME} 1: every byte is as published" in checked.stdout
    assert "Traceback" not in checked.stderr
    shown = layerflow("models", "show", "2")
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 1)
    assert layerflow("models", "show", "1").returncode == 0, "a receipt that says little is shown as far as it goes"
    verified = layerflow("verify", str(layout.home(NAME) / "3"))
    assert verified.returncode == 1
    assert "is not the list that was published" in verified.stderr
