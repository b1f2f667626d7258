"""`layerflow approve` and `layerflow models`, for a candidate about which no run is suspended."""

import getpass
import json
from pathlib import Path

import pytest

from cli.approve import approve
from cli.models import check_versions, list_versions
from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, RegistryError
from layerflow.outcomes import Retrained
from layerflow.registry import candidates, versions
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from tests.shared import copy_artifact

NAME = "mlp-digits"


@pytest.fixture
def asked(first_run: Retrained, session_store: Path, empty_store: Path) -> Retrained:
    """The first run, whose model waits in a store of the test's own."""
    for record in (first_run.data, first_run.export):
        copy_artifact(record.folder, session_store, empty_store)
    challenger = Challenger(*(getattr(first_run, part) for part in Challenger._fields))
    config = RetrainConfig.model_validate({"gate": {"approval": "borderline"}})
    return first_run.model_copy(update={"promotion": promote(config, challenger, "run")})


def test_a_system_without_a_name_for_its_user_can_answer_too(
    asked: Retrained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs under a number."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    approve(NAME, reject=True, reason="no", by=None)
    assert "rejected by somebody: no" in capsys.readouterr().out


def test_a_candidate_is_listed_and_approved(asked: Retrained, capsys: pytest.CaptureFixture[str]) -> None:
    list_versions(None, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["version"], row["candidate"], row["accuracy"]) == (None, 1, asked.evaluation.accuracy)
    assert row["role"].startswith("waits for approval until ")
    approve(NAME, reject=False, reason="looks good", by=None)
    out = capsys.readouterr().out
    assert f"; approved by {getpass.getuser()}: looks good\nversion 1 is live: {store.root()}" in out
    assert versions.numbers(NAME) == [1]
    list_versions(NAME, as_json=False)
    assert "candidate" not in capsys.readouterr().out


def test_a_candidate_is_rejected_by_somebody_else(asked: Retrained, capsys: pytest.CaptureFixture[str]) -> None:
    list_versions(None, as_json=False)
    assert "candidate 1" in capsys.readouterr().out
    approve(NAME, reject=True, reason="", by="ben")
    assert capsys.readouterr().out == "kept_rejected: rejected by ben\nno version is live\n"
    assert versions.numbers(NAME) == []


def test_a_damaged_candidate_is_found(asked: Retrained, capsys: pytest.CaptureFixture[str]) -> None:
    check_versions(None)
    assert "mlp-digits candidate 1: every byte is as when the question was asked" in capsys.readouterr().out
    (candidates.folder_of(NAME, 1) / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(DamagedError, match="1 thing is not"):
        check_versions(None)
    assert "mlp-digits candidate 1: saved_model.pb was changed" in capsys.readouterr().out


def test_a_name_without_a_question_is_one_sentence(asked: Retrained) -> None:
    with pytest.raises(RegistryError, match="NAME must be a model with a candidate"):
        approve(f"../models/{NAME}", reject=False, reason="", by=None)
    with pytest.raises(RegistryError, match=r"only mlp-digits has one. Received: mlp-digit .did you mean mlp-digits"):
        approve("mlp-digit", reject=False, reason="", by=None)
    approve(NAME, reject=True, reason="", by=None)
    with pytest.raises(RegistryError, match=r"no model has one; run layerflow retrain\. Received: mlp-digits"):
        approve(NAME, reject=False, reason="", by=None)
