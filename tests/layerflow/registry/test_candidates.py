"""A person in the gate: what waits, what an answer does, and what closes a question without one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from layerflow import checksums, store
from layerflow.checksums import EXTRA
from layerflow.errors import DamagedError, RegistryError
from layerflow.outcomes import Comparison, DecisionCode, Promotion
from layerflow.registry import answers, candidates, layout, publishing, versions
from layerflow.registry.answers import answer, settle
from layerflow.registry.approval import why_ask
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back
from layerflow.settings.gate import GateConfig

NAME = "mlp-digits"
YES, NO = answer(True, "anna", "looks good"), answer(False, "ben", "cameras 3 and 4 fail")
Decide = Callable[..., Promotion]


def receipt_of(made: Promotion) -> dict[str, Any]:
    return json.loads(store.path(made.receipt).read_text())


def closed(made: Promotion) -> Promotion:
    """What became of a candidate, as it was kept."""
    answers.closed(NAME)
    return candidates.read_run(candidates.answered(NAME, made.candidate or 0) / "run.json")[1].promotion


@pytest.fixture
def in_eight_days(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets eight days pass."""
    return lambda: monkeypatch.setattr(candidates, "now", lambda: datetime.now(UTC) + timedelta(days=8))


def test_what_needs_approval_waits_outside_the_versions_and_nothing_is_published(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    made = decide("good", approval="always")
    assert (made.code, made.status, made.version, made.candidate) == ("waiting_for_approval", "waiting", None, 1)
    assert versions.numbers(NAME) == []
    folder = candidates.folder_of(NAME, 1)
    assert store.root() / "models" not in folder.parents
    assert not layout.is_version(folder.name)
    assert checksums.damage(folder) is None
    present = checksums.digests(folder)
    exported = checksums.digests(store.path(contenders["good"].export.saved_model))
    assert {file for file in present if present[file] != exported.get(file)} == {
        f"{EXTRA}/{name}"
        for name in (
            *("receipt.json", "report.html", "images.npz", "run.json", "SHA256SUMS"),
            *("provenance.intoto.json", "sbom.cdx.json"),
        )
    }
    receipt = receipt_of(made)
    assert (receipt["version"], receipt["decision"]["status"], receipt["decision"]["candidate"]) == (None, "waiting", 1)


@pytest.mark.parametrize("live", [None, "good"])
def test_approval_publishes_exactly_the_candidate_and_says_who_when_and_why(decide: Decide, live: str | None) -> None:
    if live:
        decide(live)
    asked = decide("similar", approval="always", margin=1)
    exported = checksums.digests(candidates.folder_of(NAME, 1))
    made = settle(NAME, 1, YES).promotion
    version = 2 if live else 1
    assert (made.code, made.version) == ("promoted_not_worse" if live else "promoted_first", version)
    assert made.reason.endswith("; approved by anna: looks good")
    assert versions.damage(NAME, version) is None
    published = checksums.digests(layout.home(NAME) / str(version))
    beside = {*layout.BESIDE, layout.RUN, checksums.DIGESTS}
    assert {file: exported[file] for file in exported if file not in beside} == {
        file: published[file] for file in published if file not in beside
    }
    assert published[layout.IMAGES] == exported[layout.IMAGES]
    assert layout.RUN not in published
    receipt = receipt_of(made)
    assert (receipt["version"], receipt["decision"]["code"], receipt["decision"]["candidate"]) == (
        version,
        made.code,
        1,
    )
    assert receipt["decision"]["approval"] == YES.model_dump()
    assert receipt["created"] == receipt_of_answered(1)["created"]
    assert "approved by anna" in store.path(made.report).read_text()
    assert not candidates.folder_of(NAME, 1).exists()
    assert read_ledger(NAME).waiting is None
    assert asked.accuracy == made.accuracy
    assert decide("similar").code == "unchanged"


def receipt_of_answered(number: int) -> dict[str, Any]:
    return json.loads((candidates.answered(NAME, number) / "receipt.json").read_text())


def test_a_rejected_model_stays_out_until_it_is_forced(decide: Decide) -> None:
    decide("good", approval="always")
    made = settle(NAME, 1, NO).promotion
    assert (made.code, made.version, versions.numbers(NAME)) == ("kept_rejected", None, [])
    assert receipt_of(made)["decision"]["approval"] == NO.model_dump()
    again = decide("good", approval="always")
    assert again.code == "kept_rejected"
    assert again.reason == "this very model was rejected by ben: cameras 3 and 4 fail"
    assert decide("good", force="ben has left").code == "promoted_forced"
    assert read_ledger(NAME).rejected == {}


def test_a_second_answer_changes_nothing(decide: Decide) -> None:
    decide("good", approval="always")
    assert settle(NAME, 1, NO).promotion == settle(NAME, 1, YES).promotion
    assert versions.numbers(NAME) == []
    with pytest.raises(RegistryError, match="Candidate 2 of mlp-digits must be one that was asked about"):
        settle(NAME, 2, YES)


def test_an_answer_after_the_date_publishes_nothing(decide: Decide, in_eight_days: Callable[[], None]) -> None:
    decide("good", approval="always")
    in_eight_days()
    made = settle(NAME, 1, YES).promotion
    assert (made.code, made.approval, versions.numbers(NAME)) == ("kept_unanswered", None, [])
    assert decide("good", approval="always").candidate == 2, "the next run asks again"


def test_the_next_run_closes_a_question_whose_time_is_over(decide: Decide, in_eight_days: Callable[[], None]) -> None:
    asked = decide("good", approval="always")
    in_eight_days()
    assert decide("poor", min_accuracy=1).code == "kept_below_floor"
    assert closed(asked).code == "kept_unanswered"


def test_a_newer_question_replaces_the_older_one(decide: Decide) -> None:
    first = decide("good", approval="always")
    second = decide("similar", approval="always")
    assert closed(first).code == "kept_obsolete"
    assert (second.candidate, candidates.folder_of(NAME, 1).exists()) == (2, False)
    assert settle(NAME, 1, YES).promotion.code == "kept_obsolete"
    assert versions.numbers(NAME) == []
    assert settle(NAME, 2, YES).promotion.version == 1
    assert (read_ledger(NAME).published or {})[1].model == model_identity(receipt_of_answered(2))


def test_a_newer_version_makes_the_question_obsolete(decide: Decide) -> None:
    asked = decide("poor", approval="always")
    decide("good")
    made = closed(asked)
    assert (made.code, made.reason) == ("kept_obsolete", "version 1, of a newer run, was published")


def test_the_same_model_is_asked_about_once(decide: Decide) -> None:
    decide("good", approval="always")
    again = decide("good", approval="always")
    assert (again.code, again.candidate) == ("waiting_for_approval", 1)
    assert "this very model is candidate 1, which waits for an answer until" in again.reason
    assert decide("good").code == "promoted_first", "nobody has to be asked any more"


def test_a_candidate_that_was_overtaken_must_be_decided_again(decide: Decide) -> None:
    decide("poor")
    decide("similar")
    decide("good", approval="always", margin=1)
    roll_back(NAME)
    made = settle(NAME, 1, YES).promotion
    assert (made.code, versions.numbers(NAME)) == ("kept_overtaken", [3, 2, 1])
    assert made.reason == (
        "version 2 was live when the question was asked, and version 3 is live now; re-run the command to decide again"
    )


def damage_the_model(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"another")


def forge_it_consistently(folder: Path) -> None:
    damage_the_model(folder)
    checksums.write_digests(folder)


def lose_it(folder: Path) -> None:
    (folder / checksums.DIGESTS).unlink()


@pytest.mark.parametrize("harm", [damage_the_model, forge_it_consistently, lose_it])
def test_a_damaged_candidate_is_not_published_and_can_be_rejected(decide: Decide, harm: Callable[[Path], None]) -> None:
    decide("good", approval="always")
    harm(candidates.folder_of(NAME, 1))
    with pytest.raises(DamagedError, match="must be, byte for byte, what the question was about, and"):
        settle(NAME, 1, YES)
    assert versions.numbers(NAME) == []
    assert settle(NAME, 1, NO).promotion.code == "kept_rejected"


def test_a_damaged_candidate_is_asked_about_anew(decide: Decide) -> None:
    decide("good", approval="always")
    damage_the_model(candidates.folder_of(NAME, 1))
    assert decide("good", approval="always").candidate == 2
    assert settle(NAME, 2, YES).promotion.version == 1


def test_a_candidate_of_another_layerflow_is_asked_about_anew(decide: Decide) -> None:
    decide("good", approval="always")
    run = candidates.folder_of(NAME, 1) / layout.RUN
    content = json.loads(run.read_text())
    content["config"]["gate"]["of_yesterday"] = 1
    run.write_text(json.dumps(content))
    checksums.write_digests(run.parents[1])
    ledger = read_ledger(NAME)
    sums = checksums.sha256(run.parents[1] / checksums.DIGESTS)
    assert ledger.waiting
    write_ledger(NAME, ledger.model_copy(update={"waiting": ledger.waiting.model_copy(update={"sums": sums})}))
    assert decide("good", approval="always").candidate == 2


def test_a_candidate_without_its_records_is_discarded(decide: Decide, caplog: pytest.LogCaptureFixture) -> None:
    decide("good", approval="always")
    (candidates.folder_of(NAME, 1) / layout.RUN).write_text("[]")
    with pytest.raises(RegistryError, match="Candidate 1"):
        settle(NAME, 1, NO)
    assert "what became of candidate 1 of mlp-digits can't be recorded" in caplog.text
    assert read_ledger(NAME).waiting is None


class Killed(BaseException):
    """As a signal ends a process: nobody catches it."""


def die(*arguments: object, **keywords: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("module", "step"),
    [(publishing, "write_ledger"), (publishing, "put_together"), (publishing, "prune"), (answers, "write_ledger")],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_killed_while_publishing_the_same_answer_publishes_once(
    decide: Decide, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    decide("good", approval="always")
    with monkeypatch.context() as patched:
        patched.setattr(module, step, die)
        with pytest.raises(Killed):
            settle(NAME, 1, YES)
    made = settle(NAME, 1, YES).promotion
    assert (made.code, versions.numbers(NAME)) == ("promoted_first", [made.version]), "it is published once"
    assert versions.damage(NAME, made.version or 0) is None
    assert read_ledger(NAME).waiting is None


def test_killed_while_asking_the_older_question_stays_and_the_rest_is_removed(
    decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("good", approval="always")
    with monkeypatch.context() as patched:
        patched.setattr(candidates, "close", die)
        with pytest.raises(Killed):
            decide("similar", approval="always")
    assert read_ledger(NAME).waiting.number == 1  # type: ignore[union-attr]
    candidates.remove_leftovers(NAME)
    assert [each.name for each in candidates.home(NAME).iterdir()] == ["candidate-1"]
    assert settle(NAME, 1, YES).promotion.version == 1


def test_no_secret_of_an_address_is_in_an_answer(decide: Decide) -> None:
    decide("good", approval="always", force="see https://anna:Zq7secret@tickets/7")
    asked = "".join(file.read_text(errors="replace") for file in store.root().rglob("run.json"))
    made = settle(NAME, 1, answer(True, "anna", "as https://anna:Zq7secret@tickets/7 says")).promotion
    kept = store.path(made.receipt).read_text() + store.path(made.report).read_text()
    kept += "".join(each.read_text() for each in candidates.answered(NAME, 1).iterdir())
    assert "https://***@tickets/7" in kept
    assert "Zq7secret" not in kept + made.model_dump_json() + asked


def test_an_answer_is_one_printable_line() -> None:
    given = answer(True, " \n", "good\n\nIgnore\x1b[2J the rest\u202e")
    assert (given.by, given.reason) == ("somebody", "good Ignore[2J the rest")


@pytest.mark.parametrize(
    ("code", "low", "new", "why"),
    [
        ("promoted_first", None, set(), "it is the first version"),
        ("promoted_forced", -0.1, set(), "it is forced"),
        ("promoted_not_comparable", None, set(), "it can't be compared with the live version"),
        ("promoted_better", 0.01, {"cat"}, "the class cat is new"),
        ("promoted_not_worse", -0.001, set(), "the difference is within noise"),
        ("promoted_not_worse", 0.001, set(), None),
        ("promoted_better", 0.01, set(), None),
        ("kept_worse", -0.1, {"cat"}, None),
        ("unchanged", None, set(), None),
    ],
)
def test_borderline_asks_about_what_the_comparison_does_not_show_to_be_better(
    code: DecisionCode, low: float | None, new: set[str], why: str | None
) -> None:
    found = None if low is None else Comparison.model_construct(difference_low=low)
    asked = [why_ask(GateConfig(approval=who), code, found, new) for who in ("never", "borderline", "always")]
    assert asked == [None, why, "gate.approval is always" if code.startswith("promoted") else None]


def test_a_class_that_the_live_version_does_not_know_is_asked_about(
    decide: Decide, contenders: dict[str, Challenger], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("poor")
    read = versions.receipt_of

    def without_nine(name: str, version: int) -> dict[str, Any]:
        receipt = read(name, version) or {}
        return {**receipt, "data": {**receipt["data"], "classes": receipt["data"]["classes"][:9]}}

    monkeypatch.setattr(versions, "receipt_of", without_nine)
    made = decide("good", approval="borderline", classes="new_allowed", min_class_recall=0.1)
    assert made.reason.endswith("A person must approve candidate 1, because the class 9 is new")
