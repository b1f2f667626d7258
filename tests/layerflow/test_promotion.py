"""The decision, the registry and the receipt."""

import json
import shutil
from pathlib import Path

import pytest

from layerflow import registry, store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, VerificationError
from layerflow.manifest import EXTRA
from layerflow.promotion import Challenger, promote
from layerflow.records import Promotion, Retrained


@pytest.fixture
def challenger(first_run: Retrained, session_store: Path, empty_store: Path) -> Challenger:
    """The model of the first run, in a store where nothing is published yet."""
    shutil.copytree(session_store / first_run.export.folder, empty_store / first_run.export.folder)
    return Challenger(
        first_run.data,
        first_run.model,
        first_run.trained,
        first_run.evaluation,
        first_run.export,
        first_run.verification,
    )


def other(challenger: Challenger, accuracy: float, digest: str = "other", **evaluation: object) -> Challenger:
    """A challenger of another accuracy; its export has another digest and the same files."""
    return challenger._replace(
        evaluation=challenger.evaluation.model_copy(update={"accuracy": accuracy, **evaluation}),
        export=challenger.export.model_copy(update={"digest": digest}),
        verification=challenger.verification.model_copy(update={"export_digest": digest}),
    )


def decide(challenger: Challenger, **gate: object) -> Promotion:
    return promote(RetrainConfig.model_validate({"gate": gate}), challenger, "run")


def test_the_first_model_is_version_1_and_the_same_again_is_unchanged(challenger: Challenger) -> None:
    first = decide(challenger)
    assert (first.status, first.version) == ("promoted", 1)
    again = decide(challenger)
    assert (again.status, again.version, again.receipt) == ("unchanged", 1, first.receipt)
    assert registry.versions("mlp-digits") == [1]


def test_a_better_model_is_the_next_version_and_a_worse_one_gets_no_number(challenger: Challenger) -> None:
    decide(challenger)
    worse = decide(other(challenger, accuracy=0.5))
    assert (worse.status, worse.version) == ("kept", 1)
    assert "0.5000 is below the" in worse.reason
    better = decide(other(challenger, accuracy=0.99, digest="better"))
    assert (better.status, better.version, better.champion_version) == ("promoted", 2, 1)
    assert registry.versions("mlp-digits") == [2, 1]


@pytest.mark.parametrize("accuracy", [0.9, float("nan")])
def test_below_the_floor_is_kept_even_without_a_champion(challenger: Challenger, accuracy: float) -> None:
    made = decide(other(challenger, accuracy=accuracy), min_accuracy=0.95)
    assert (made.status, made.version, made.published) == ("kept", None, None)
    assert "below gate.min_accuracy 0.95" in made.reason
    assert registry.names() == []


def test_another_test_set_is_never_compared(challenger: Challenger) -> None:
    decide(challenger)
    made = decide(other(challenger, accuracy=1.0, test_digest="other"))
    assert made.status == "kept"
    assert "scored on other test examples" in made.reason


def test_a_verification_of_another_export_promotes_nothing(challenger: Challenger) -> None:
    strange = challenger._replace(export=challenger.export.model_copy(update={"digest": "another"}))
    with pytest.raises(VerificationError, match="it is of another"):
        decide(strange)
    assert registry.names() == []


def test_an_export_that_changed_after_its_verification_is_not_published(challenger: Challenger) -> None:
    (store.path(challenger.export.saved_model) / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(DamagedError, match="it was not published"):
        decide(challenger)
    assert list(registry.home("mlp-digits").iterdir()) == []


def test_the_receipt_says_how_the_model_came_about(challenger: Challenger) -> None:
    made = decide(challenger)
    receipt = json.loads(store.path(made.receipt).read_text())
    assert store.path(made.receipt) == store.path(made.published or "") / EXTRA / "receipt.json"
    assert receipt["config"]["training"]["epochs"] == RetrainConfig().training.epochs
    assert receipt["data"]["digest"] == challenger.data.digest
    assert receipt["evaluation"]["accuracy"] == challenger.evaluation.accuracy
    assert receipt["export"]["files"] == challenger.export.files
    assert receipt["decision"]["status"] == "promoted"
    assert receipt["versions"]["tensorflow"].startswith("2.")
    assert set(receipt["history"][0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    for key in ("seed", "code", "verification", "trained", "model", "flow_run", "created"):
        assert key in receipt


def test_the_receipt_of_a_kept_model_is_kept_too(challenger: Challenger) -> None:
    decide(challenger)
    made = decide(other(challenger, accuracy=0.5))
    receipt = json.loads(store.path(made.receipt).read_text())
    assert receipt["decision"]["status"] == "kept"
    assert receipt["version"] is None


def test_foreign_folders_are_no_versions(challenger: Challenger) -> None:
    decide(challenger)
    for name in ("abc", "7.bak", ".staging-9-1", "007", "0", "-3", "²"):
        (registry.home("mlp-digits") / name).mkdir()
    assert registry.versions("mlp-digits") == [1]


def test_a_version_is_whole_or_absent(challenger: Challenger, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry.store, "sync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        decide(challenger)
    assert list(registry.home("mlp-digits").iterdir()) == []
    monkeypatch.undo()


def test_a_champion_without_a_receipt_is_not_overtaken_blindly(challenger: Challenger) -> None:
    (registry.home("mlp-digits") / "4").mkdir(parents=True)
    made = decide(challenger)
    assert (made.status, made.version) == ("kept", 4)
    assert "carries no receipt" in made.reason
