"""Publishing into a bucket, from several stores: one history, whatever dies and whatever fails."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layerflow import checksums, store
from layerflow.checksums import DIGESTS
from layerflow.errors import DamagedError, RegistryError, UnreachableError
from layerflow.registry import aliases, layout, ledger, publishing, shared, sharing, versions
from layerflow.registry.layout import RECEIPT, SIGNATURE
from layerflow.remote import bucket, lease
from layerflow.settings.gate import SignConfig
from tests.object_store import Enter, Proxy, lake

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from remote_drill import NAME, drill, publish_one

pytestmark = pytest.mark.process  # the S3 server is one: two stores see the same objects only there


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a dead machine waits five seconds."""
    monkeypatch.setattr(lease, "SECONDS", 5)


@pytest.fixture
def publish(enter: Enter, tmp_path: Path) -> Callable[[str], int]:
    """Publishes a small version from the store in force, and returns its number."""
    return lambda label: publish_one(label, tmp_path / "exports")


def in_bucket() -> list[str]:
    """The objects of the model, but for its claims."""
    return [file for file in lake().names(f"models/{NAME}") if not file.startswith(".claims/")]


def model_of(number: int) -> object:
    receipt = versions.receipt_of(NAME, number)
    assert receipt
    return receipt["trained"]["digest"]


def test_another_store_goes_on_where_the_first_one_was(enter: Enter, publish: Callable[[str], int]) -> None:
    assert publish("one") == 1
    enter("b")
    assert publish("two") == 2
    enter("c")
    sharing.refresh(NAME)
    assert versions.names() == [NAME]
    assert versions.numbers(NAME) == [2, 1]
    assert [model_of(each) for each in (1, 2)] == ["one", "two"]
    assert versions.damage(NAME, 2) is None
    assert ledger.read_ledger(NAME).best == 2


def test_only_receipts_are_downloaded_until_a_model_is_read(
    enter: Enter, publish: Callable[[str], int], endpoint: Proxy
) -> None:
    publish("one")
    enter("b")
    before = len(endpoint.requests)
    sharing.refresh(NAME)
    assert versions.numbers(NAME) == [1]
    read = {each.partition("/1/")[2] for each in endpoint.requests[before:] if each.startswith("GET") and "/1/" in each}
    assert read == {RECEIPT, DIGESTS}
    assert not (layout.home(NAME) / "1").exists()
    folder = versions.folder_of(NAME, 1)
    assert folder == layout.home(NAME) / "1"
    assert checksums.damage(folder) is None


def test_a_signature_goes_to_the_bucket_and_is_downloaded_with_its_version(
    enter: Enter, tmp_path: Path, signing_key: Path
) -> None:
    publish_one("one", tmp_path / "exports", sign=SignConfig(key=signing_key))
    assert f"1/{SIGNATURE}" in in_bucket()
    enter("b")
    sharing.refresh(NAME)
    assert versions.damage(NAME, 1) is None, "only its receipt is here"
    folder = versions.folder_of(NAME, 1)
    assert (folder / SIGNATURE).is_file()
    assert versions.damage(NAME, 1) is None
    enter("c")
    lake().delete([f"models/{NAME}/1/{SIGNATURE}"])
    sharing.refresh(NAME)
    versions.folder_of(NAME, 1)
    assert versions.damage(NAME, 1) == f"{SIGNATURE} is missing"


def test_the_bucket_has_the_layout_of_tensorflow_serving_and_nothing_else_that_looks_like_a_version(
    enter: Enter, publish: Callable[[str], int]
) -> None:
    publish("one")
    publish("two")
    seen = {name for name in lake().folders(f"models/{NAME}") if not name.startswith(".")}
    assert seen == {"1", "2"}
    here = sorted(checksums.digests(layout.home(NAME) / "2"))
    assert sorted(file.removeprefix("2/") for file in in_bucket() if file.startswith("2/")) == here
    assert not [file for file in in_bucket() if file.startswith(".staging")]


def test_a_number_appears_when_the_ledger_lists_it_and_its_model_is_the_last_object(
    enter: Enter, publish: Callable[[str], int], endpoint: Proxy
) -> None:
    publish("one")
    written = [each for each in endpoint.requests if each.startswith("PUT")]
    at_number = [place for place, each in enumerate(written) if f"models/{NAME}/1/" in each]
    assert written[at_number[-1]].endswith("/1/saved_model.pb")
    listed = max(place for place, each in enumerate(written[: at_number[0]]) if each.endswith("/.ledger.json"))
    assert listed < at_number[0]
    assert all(f"models/{NAME}/1/" in each for each in written[at_number[0] : at_number[-1]])


def test_what_one_store_prunes_goes_from_the_bucket_and_from_the_others(
    enter: Enter, publish: Callable[[str], int]
) -> None:
    publish("one")
    enter("b")
    for label in ("two", "three", "four", "five"):
        publish(label)
    assert versions.numbers(NAME) == [5, 4, 3]
    assert {name for name in lake().folders(f"models/{NAME}") if not name.startswith(".")} == {"3", "4", "5"}
    here = enter("a")
    sharing.refresh(NAME)
    assert versions.numbers(NAME) == [5, 4, 3]
    assert not (here / "models" / NAME / "1").exists()


def test_aliases_are_those_of_all_machines(enter: Enter, publish: Callable[[str], int]) -> None:
    publish("one")
    enter("b")
    aliases.set_alias(NAME, "canary", 1)
    enter("a")
    sharing.refresh(NAME)
    assert aliases.aliases_of(NAME)["canary"] == 1
    enter("c")
    aliases.remove_alias(NAME, "canary")
    sharing.refresh(NAME)
    assert "canary" not in aliases.aliases_of(NAME)
    assert not (layout.home(NAME) / "1").exists(), "a name needs no model"


@pytest.mark.parametrize(
    ("kind", "requests"),
    [
        ("503", ".*"),
        ("403", "PUT .*/.claims/.*"),
        ("reset", "PUT .*/.staging-2/.*"),
        ("503", "PUT .*/2/variables.*"),
        ("hang", "PUT .*/2/saved_model.pb"),
    ],
)
def test_a_publication_that_fails_is_refused_and_the_next_one_succeeds(
    enter: Enter,
    publish: Callable[[str], int],
    endpoint: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    requests: str,
) -> None:
    monkeypatch.setattr("layerflow.remote.address.REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(bucket, "RETRY_DELAYS", (0.01,))
    bucket.forget()
    publish("one")
    endpoint.fail(kind, requests)  # type: ignore[arg-type]
    with pytest.raises(UnreachableError, match="must let this process"):
        publish("two")
    assert versions.numbers(NAME) == [1], "the live version stays"
    assert not list(layout.home(NAME).glob(".staging*"))
    endpoint.heal()
    monkeypatch.setattr(lease, "SECONDS", 0.5)  # what failed could not give it back
    enter("b")
    number = publish("three")
    assert number in (2, 3)
    assert versions.numbers(NAME) == [number, 1]
    assert {name for name in lake().folders(f"models/{NAME}") if name.isdigit()} == {"1", str(number)}
    assert model_of(number) == "three"


def test_a_version_that_was_half_shown_is_none_and_is_removed(enter: Enter, publish: Callable[[str], int]) -> None:
    publish("one")
    publish("two")
    lake().delete([f"models/{NAME}/2/{shared.COMMIT}"])
    lake().put(f"models/{NAME}/.staging-2/variables/index", b"left")
    enter("b")
    sharing.refresh(NAME)
    assert versions.numbers(NAME) == [1]
    assert publish("three") == 3
    assert {file.partition("/")[0] for file in in_bucket()} == {".ledger.json", "1", "3"}


def test_a_version_that_appeared_although_its_machine_was_given_up_stays(
    enter: Enter, publish: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is copied between the look of the next machine and what that machine does about it."""
    publish("one")
    commit = f"models/{NAME}/1/{shared.COMMIT}"
    content = lake().get(commit)
    assert content
    lake().delete([commit])
    write = sharing._Session._write

    def late(session: sharing._Session, *arguments: object) -> None:
        lake().put(commit, content.content)
        write(session, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sharing._Session, "_write", late)
    enter("b")
    assert publish("two") == 2
    assert versions.numbers(NAME) == [2, 1]


def test_whose_lease_was_taken_over_publishes_nothing(
    enter: Enter, publish: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("one")
    stage = sharing.stage

    def be_overtaken(name: str, number: int, folder: Path) -> None:
        stage(name, number, folder)
        monkeypatch.setattr(lease.Lease, "is_held", False)

    monkeypatch.setattr(sharing, "stage", be_overtaken)
    with pytest.raises(UnreachableError, match="another one took over; re-run the command"):
        publish("two")
    monkeypatch.undo()


def test_whose_ledger_was_replaced_publishes_nothing(
    enter: Enter, publish: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("one")
    stage = sharing.stage

    def be_overtaken(name: str, number: int, folder: Path) -> None:
        stage(name, number, folder)
        newer = ledger.read_ledger(name).model_copy(update={"looks": 99})
        lake().put(f"models/{name}/.ledger.json", ledger.as_text(newer))

    with monkeypatch.context() as patch:
        patch.setattr(sharing, "stage", be_overtaken)
        with pytest.raises(UnreachableError, match="another one took over"):
            publish("two")
    assert publish("three") == 3
    assert ledger.read_ledger(NAME).looks == 100


def test_a_number_that_another_machine_has_claimed_is_passed_over(enter: Enter, publish: Callable[[str], int]) -> None:
    lake().put(f"models/{NAME}/.claims/1", b"{}")
    assert publish("one") == 2


def test_versions_from_before_the_bucket_are_uploaded_with_the_next_publication(
    enter: Enter, publish: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("LAYERFLOW_REMOTE")
        publish("one")
    assert publish("two") == 2
    enter("b")
    sharing.refresh(NAME)
    assert [model_of(each) for each in versions.numbers(NAME)] == ["two", "one"]
    assert checksums.damage(versions.folder_of(NAME, 1)) is None


def test_a_store_with_another_history_is_refused_and_keeps_what_it_has(
    enter: Enter, publish: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("one")
    enter("b")
    with monkeypatch.context() as patch:
        patch.delenv("LAYERFLOW_REMOTE")
        publish("other")
    with pytest.raises(RegistryError, match=r"/1 must be a version in s3://.* one history. It is not; move"):
        publish("two")
    monkeypatch.delenv("LAYERFLOW_REMOTE")
    assert model_of(1) == "other"


def test_a_bucket_that_is_away_leaves_what_is_known(
    enter: Enter, publish: Callable[[str], int], endpoint: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    publish("one")
    endpoint.fail("503")
    sharing.refresh(NAME)
    sharing.refresh_all()
    assert versions.numbers(NAME) == [1]
    said = [each for each in caplog.records if each.name.startswith("layerflow")]  # Prefect's logger may repeat it
    assert [each.levelname for each in said if "What this store knows of" in each.getMessage()] == ["WARNING"] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"highest": 99}', b"\xff" * 9])
def test_a_ledger_that_can_not_be_read_stops_publications(
    enter: Enter, publish: Callable[[str], int], content: bytes
) -> None:
    publish("one")
    lake().put(f"models/{NAME}/.ledger.json", content)
    with pytest.raises(DamagedError, match=r"must be the ledger of the versions. It can't be read; restore an earlier"):
        publish("two")
    assert ledger.read_ledger(NAME).highest == 1


def test_a_version_that_was_changed_in_the_bucket_is_not_taken(enter: Enter, publish: Callable[[str], int]) -> None:
    publish("one")
    lake().put(f"models/{NAME}/1/variables/index", b"evil")
    enter("b")
    sharing.refresh(NAME)
    with pytest.raises(DamagedError, match="must be as it was published, and variables/index was changed; restore it"):
        versions.folder_of(NAME, 1)
    assert [each.name for each in layout.home(NAME).iterdir() if each.is_dir()] == []


@pytest.mark.parametrize("name", ["../../stolen", "/stolen", DIGESTS])
def test_a_list_of_digests_that_names_files_elsewhere_is_refused(
    enter: Enter, publish: Callable[[str], int], tmp_path: Path, name: str
) -> None:
    publish("one")
    lake().put(f"models/{NAME}/1/{DIGESTS}", f"{'0' * 64}  {name}\n".encode())
    enter("b")
    sharing.refresh(NAME)
    assert "not the list that was published" in (versions.damage(NAME, 1) or "")
    with pytest.raises(DamagedError, match="names files outside of it"):
        versions.folder_of(NAME, 1)
    assert not list(tmp_path.rglob("stolen"))


def test_a_receipt_that_was_changed_in_the_bucket_makes_its_version_damaged(
    enter: Enter, publish: Callable[[str], int]
) -> None:
    publish("one")
    found = lake().get(f"models/{NAME}/1/{RECEIPT}")
    assert found
    lake().put(f"models/{NAME}/1/{RECEIPT}", found.content.replace(b'"accuracy": 1.0', b'"accuracy": 0.5'))
    enter("b")
    sharing.refresh(NAME)
    assert versions.damage(NAME, 1) == f"{RECEIPT} was changed"


@pytest.mark.drill
def test_two_stores_that_race_and_die_leave_no_version_torn_doubled_or_lost() -> None:
    """The processes are the test: each is killed by the system at a random moment."""
    assert drill(races=2, kills=1, seed=4) == 0


def test_no_secret_is_in_what_is_kept(enter: Enter, publish: Callable[[str], int]) -> None:
    from tests.object_store import KEY_ID, SECRET

    publish("one")
    kept = [file.read_bytes() for file in store.root().rglob("*") if file.is_file()]
    kept += [found.content for name in lake().names("models") if (found := lake().get(f"models/{name}"))]
    assert len(kept) > 20
    assert not [each for each in kept if KEY_ID.encode() in each or SECRET.encode() in each]


@pytest.mark.parametrize("name", ["a b", "é", "x" * 101, ".hidden", "-x"])
def test_what_is_no_name_of_a_model_is_left_alone(enter: Enter, name: str) -> None:
    lake().put(f"models/{name}/.ledger.json", b"{}")
    sharing.refresh_all()
    assert not (store.root() / "models").exists()


def test_without_the_variable_no_one_is_asked(
    enter: Enter, publish: Callable[[str], int], endpoint: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAYERFLOW_REMOTE")
    publish("one")
    sharing.refresh_all()
    assert endpoint.requests == []
    assert not (store.root() / ".remote").exists()
    assert json.loads((layout.home(NAME) / "1" / RECEIPT).read_text())["version"] == 1
    shutil.rmtree(layout.home(NAME))
    assert publishing.next_version(NAME) == 1
