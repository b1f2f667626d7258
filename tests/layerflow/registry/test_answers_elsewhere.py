"""A candidate that one machine asks about is answered on another one, and rolled back on a third."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layerflow import store
from layerflow.outcomes import Promotion
from layerflow.registry import answers, candidates, layout, sharing, versions
from layerflow.registry.answers import answer, settle
from layerflow.registry.rollback import roll_back
from layerflow.remote import bucket
from tests.layerflow.conftest import VERIFIER
from tests.object_store import Proxy

NAME = "mlp-digits"
YES = answer(True, "anna", "looks good")
Decide = Callable[..., Promotion]

pytestmark = pytest.mark.process  # the S3 server is one: two stores see the same objects only there


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``enter("b")`` puts another store into force, which is empty at first."""
    return lambda name: monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / name))


def in_bucket(folder: str) -> list[str]:
    lake = bucket.in_force()
    assert lake
    return lake.names(folder)


def test_a_candidate_is_answered_on_another_machine_and_its_version_rolled_back_on_a_third(
    endpoint: Proxy, decide: Decide, enter: Callable[[str], None]
) -> None:
    decide("poor")
    asked = decide("good", approval="always")
    assert (asked.status, asked.candidate) == ("waiting", 1)
    assert "candidate-1/saved_model.pb" in in_bucket(f"candidates/{NAME}")

    enter("b")
    sharing.refresh_all()
    waiting = candidates.waiting(NAME)
    assert waiting
    made = settle(NAME, 1, YES).promotion
    assert (made.status, made.version) == ("promoted", 2)
    assert versions.damage(NAME, 2) is None
    assert (store.root() / "candidates" / NAME / "candidate-1").exists() is False

    enter("c")
    again = settle(NAME, 1, YES).promotion
    assert again == made, "an answer that comes twice changes nothing, wherever it comes"
    assert in_bucket(f"candidates/{NAME}") == []
    assert versions.numbers(NAME) == [2, 1]
    back = roll_back(NAME, verifier=VERIFIER)
    assert (back.version, back.restored, back.instead_of) == (3, 1, 2)
    assert not (layout.home(NAME) / "2").exists(), "only what is restored is downloaded"

    enter("d")
    sharing.refresh(NAME)
    assert versions.numbers(NAME) == [3, 2, 1]
    assert versions.damage(NAME, 3) is None
    receipt = versions.receipt_of(NAME, 3)
    assert receipt
    assert receipt["decision"]["restored"] == 1


def test_a_run_on_another_machine_closes_an_open_question(
    endpoint: Proxy, decide: Decide, shelf: Path, enter: Callable[[str], None]
) -> None:
    asked = decide("good", approval="always")
    assert decide("good", approval="always") == asked.model_copy(
        update={"reason": f"this very model is candidate 1, which waits for an answer until {asked.until}"}
    )
    made = decide("poor")
    assert made.version == 1
    enter("b")
    (closed,) = answers.closed(NAME)
    assert (closed.code, closed.candidate) == ("kept_obsolete", 1)
    assert f"candidate-1/{candidates.RUN_FILE}" in in_bucket(f"receipts/{NAME}")
    enter("c")
    assert answers.closed(NAME) == []
