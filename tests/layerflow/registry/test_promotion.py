"""The decision, with real models, and its receipt."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layerflow import artifacts, checksums, store
from layerflow.checksums import EXTRA
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, VerificationError
from layerflow.outcomes import Promotion
from layerflow.registry import layout, publishing, versions
from layerflow.registry import ledger as ledger_module
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger, changes
from layerflow.registry.rollback import roll_back

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def recognized(challenger: Challenger, number: int, recall: float) -> Challenger:
    """A challenger of whose class this share is recognized, by evaluation and verification alike."""
    score, verified = challenger.evaluation.per_class[number], challenger.verification
    right = list(verified.class_right)
    right[number] = round(recall * score.examples)
    accuracy = sum(right) / verified.test_examples
    per_class = list(challenger.evaluation.per_class)
    per_class[number] = score.model_copy(update={"recall": right[number] / score.examples})
    update = {"class_right": tuple(right), "test_accuracy": accuracy}
    challenger = challenger._replace(verification=verified.model_copy(update=update))
    return evaluated(challenger, per_class=tuple(per_class), accuracy=accuracy)


def evaluated(challenger: Challenger, **evaluation: object) -> Challenger:
    return challenger._replace(evaluation=challenger.evaluation.model_copy(update=evaluation))


def test_the_first_model_is_version_1_and_the_same_again_is_unchanged(decide: Decide) -> None:
    first = decide("good")
    assert (first.code, first.status, first.version) == ("promoted_first", "promoted", 1)
    again = decide("good")
    assert (again.code, again.status, again.version, again.receipt) == ("unchanged", "unchanged", 1, first.receipt)
    assert versions.numbers(NAME) == [1]


def test_a_better_model_is_the_next_version_and_a_worse_one_gets_no_number(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    assert decide("poor").code == "promoted_first"
    better = decide("good")
    assert (better.code, better.version, better.champion_version) == ("promoted_better", 2, 1)
    worse = decide("poor")
    assert (worse.code, worse.status, worse.version) == ("kept_worse", "kept", 2)
    assert versions.numbers(NAME) == [2, 1]
    assert worse.comparison
    # What the gate saw is what both scored when they were evaluated.
    assert worse.comparison.challenger.accuracy == contenders["poor"].evaluation.accuracy
    assert worse.comparison.champion.accuracy == contenders["good"].evaluation.accuracy
    counts = [
        getattr(worse.comparison, f"{who}") for who in ("both_right", "only_champion", "only_challenger", "both_wrong")
    ]
    assert sum(counts) == 360
    assert worse.comparison.difference_low < worse.comparison.difference < worse.comparison.difference_high < 0


def test_within_noise_it_is_the_rule_that_decides(decide: Decide) -> None:
    decide("good")
    assert decide("similar", rule="better").code == "kept_within_noise"
    assert decide("similar", margin=0.02).code == "promoted_not_worse"


def test_below_the_floor_is_kept_even_without_a_champion_and_even_forced(decide: Decide) -> None:
    made = decide("poor", min_accuracy=0.95, force="it is late")
    assert (made.code, made.version, made.published) == ("kept_below_floor", None, None)
    assert "below gate.min_accuracy 0.95" in made.reason
    assert decide("poor", min_test_examples=1000).code == "kept_below_floor"
    assert versions.names() == []


def test_a_class_that_collapsed_is_kept_however_good_the_mean(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    made = decide(recognized(contenders["good"], 7, 0.2), min_class_recall=0.5, min_accuracy=0.85)
    assert made.code == "kept_below_floor"
    assert "of class 7 is below gate.min_class_recall 0.5" in made.reason


def test_by_default_a_model_that_never_recognizes_a_class_is_kept_even_forced(
    shelf: Path, contenders: dict[str, Challenger]
) -> None:
    config = RetrainConfig.model_validate({"gate": {"force": "it is late"}})
    made = promote(config, recognized(contenders["good"], 7, 0), "run")
    assert (made.code, made.version) == ("kept_below_floor", None)
    assert "recall 0.0000 of class 7" in made.reason
    assert versions.names() == []


@pytest.mark.parametrize("figure", [{"accuracy": 0.9999}, {"test_examples": 359}])
def test_an_evaluation_that_the_verification_contradicts_is_refused(
    decide: Decide, contenders: dict[str, Challenger], figure: dict[str, float]
) -> None:
    with pytest.raises(VerificationError, match="Evaluation and verification must agree"):
        decide(evaluated(contenders["good"], **figure), min_accuracy=0.99, force="it is late")
    assert versions.names() == []


def test_a_loss_that_is_no_number_is_kept(decide: Decide, contenders: dict[str, Challenger]) -> None:
    assert decide(evaluated(contenders["good"], loss=float("nan"))).code == "kept_below_floor"


def incomparable(challenger: Challenger) -> Challenger:
    """A challenger whose images are in another form than the champion's, so that the same ones can't be found."""
    data = challenger.data.model_copy(update={"image_rule": "cropped"})
    return evaluated(challenger._replace(data=data), test_digest="other")


def test_a_model_that_can_not_be_compared_is_kept_or_judged_by_the_floors(
    decide: Decide, contenders: dict[str, Challenger], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("poor")
    strange = incomparable(contenders["good"])
    monkeypatch.setattr(artifacts, "check_record", lambda record: None)  # its data are not on disk in that form
    kept = decide(strange)
    assert (kept.code, kept.comparison) == ("kept_not_comparable", None)
    assert "saw its images in another form" in kept.reason
    assert decide(strange, not_comparable="floors_only", min_accuracy=0.99).code == "kept_below_floor"
    made = decide(strange, not_comparable="floors_only")
    assert (made.code, made.version) == ("promoted_not_comparable", 2)


def test_a_model_above_the_latency_ceiling_is_kept_even_forced(decide: Decide) -> None:
    decide("poor")
    assert decide("good", max_latency_ratio=1e-6, force="it is late").code == "kept_too_slow"


def test_force_lifts_no_latency_ceiling_for_a_rolled_back_model(decide: Decide) -> None:
    decide("good")
    decide("similar", force="a bad night")
    roll_back(NAME)
    made = decide("similar", max_latency_ratio=1e-6, force="it was not its fault")
    assert (made.code, made.version) == ("kept_too_slow", 3)
    assert decide("similar", force="it was not its fault").code == "promoted_forced"


@pytest.mark.parametrize(
    "lift", [{"force": "it is late"}, {"not_comparable": "floors_only"}], ids=["force", "floors_only"]
)
def test_a_latency_ceiling_that_can_not_be_checked_is_not_passed(
    decide: Decide, contenders: dict[str, Challenger], lift: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("poor")
    strange = incomparable(contenders["good"])
    monkeypatch.setattr(artifacts, "check_record", lambda record: None)
    made = decide(strange, max_latency_ratio=100, **lift)
    assert (made.code, made.version) == ("kept_not_comparable", 1)
    assert "so that gate.max_latency_ratio 100.0 can't be checked" in made.reason
    assert decide(strange, **lift).version == 2


def test_force_publishes_what_the_comparison_would_keep_and_says_why(decide: Decide) -> None:
    decide("good")
    made = decide("poor", force="the other one offends customers")
    assert (made.code, made.version) == ("promoted_forced", 2)
    receipt = json.loads(store.path(made.receipt).read_text())
    assert receipt["decision"]["reason"].startswith("forced (the other one offends customers), against kept_worse")
    assert receipt["config"]["gate"]["force"] == "the other one offends customers"


def test_what_was_rolled_back_from_is_not_published_again_unless_forced(decide: Decide) -> None:
    decide("good")
    decide("similar", force="a bad night")
    roll_back(NAME)
    again = decide("similar", margin=1.0)
    assert (again.code, again.version) == ("kept_rolled_back", 3)
    assert decide("good").code == "unchanged"
    forced = decide("similar", force="it was not its fault")
    assert (forced.code, forced.version) == ("promoted_forced", 4)
    assert ledger_module.read_ledger(NAME).rolled_back == ()


def test_what_can_not_be_pruned_is_left_for_the_next_promotion(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
    decide("poor")
    decide("similar")
    with monkeypatch.context() as patched:
        patched.setattr(publishing.shutil, "rmtree", stumble)
        assert decide("poor", {"keep": 1}, force="a test").code == "promoted_forced"
    assert list(layout.home(NAME).glob(".removing-*"))
    assert decide("good", {"keep": 1}).code == "promoted_better"
    assert versions.numbers(NAME) == [4, 3]
    assert not list(layout.home(NAME).glob(".removing-*"))


def test_a_ledger_that_can_not_be_written_leaves_nothing_published(
    decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("good")
    decide("similar", force="a bad night")
    roll_back(NAME)
    write = ledger_module.write_ledger
    monkeypatch.setattr(
        publishing, "write_ledger", lambda name, ledger: write(name, ledger) if ledger.rolled_back else stumble()
    )
    with pytest.raises(OSError, match="stumbled"):
        decide("similar", force="it was not its fault")
    assert versions.numbers(NAME) == [3, 2, 1]


def stumble(*arguments: object, ignore_errors: bool = False) -> None:
    if not ignore_errors:
        raise OSError("the file system stumbled")


def test_a_verification_of_another_export_promotes_nothing(decide: Decide, contenders: dict[str, Challenger]) -> None:
    strange = contenders["good"]._replace(export=contenders["poor"].export)
    with pytest.raises(VerificationError, match="it is of another"):
        decide(strange, force="it is late")
    assert versions.names() == []
    (receipt,) = (store.root() / "receipts" / NAME).glob("*.json")
    assert json.loads(receipt.read_text())["decision"]["code"] == "refused_unverified"


def test_an_export_that_changed_after_its_verification_is_not_published(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    (store.path(contenders["good"].export.saved_model) / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(DamagedError, match="it was not published"):
        decide("good")
    assert versions.numbers(NAME) == []


def damage_a_byte(champion: Path) -> None:
    (champion / "saved_model.pb").write_bytes(b"another")


def lose_the_receipt(champion: Path) -> None:
    (champion / layout.RECEIPT).unlink()


def empty_the_receipt(champion: Path) -> None:
    (champion / layout.RECEIPT).write_text("{}")


def change_the_classes(champion: Path) -> None:
    contract = json.loads((champion / EXTRA / "contract.json").read_text())
    (champion / EXTRA / "contract.json").write_text(json.dumps(contract | {"classes": ["cat", "dog"]}))
    checksums.write_digests(champion)


def publish_for_other_classes(champion: Path) -> None:
    """As if a model for other classes had been published under the same name."""
    receipt = json.loads((champion / layout.RECEIPT).read_text())
    report = (champion / layout.REPORT).read_text()
    change_the_classes(champion)
    for beside in layout.BESIDE:
        (champion / beside).unlink()
    files = checksums.write_digests(champion)
    receipt["export"] |= {"files": files, "digest": files[checksums.DIGESTS]}
    receipt["data"]["classes"] = ["cat", "dog"]
    shutil.move(champion, champion.with_name("made"))
    publishing.publish(NAME, int(champion.name), champion.with_name("made"), receipt, report)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_a_byte, "saved_model.pb was changed"),
        (lose_the_receipt, "carries no receipt"),
        (empty_the_receipt, "carries no receipt"),
        (change_the_classes, "SHA256SUMS is not the list that was published"),
        (publish_for_other_classes, "it is for classes ['cat', 'dog']"),
    ],
)
def test_a_champion_that_can_not_be_scored_is_not_overtaken_blindly(decide: Decide, harm: object, reason: str) -> None:
    decide("poor")
    harm(layout.home(NAME) / "1")  # type: ignore[operator]
    kept = decide("good")
    assert (kept.code, kept.version) == ("kept_not_comparable", 1)
    assert reason in kept.reason
    assert decide("good", not_comparable="floors_only").code == "promoted_not_comparable"


def test_the_same_model_is_not_unchanged_where_the_one_in_service_was_replaced(decide: Decide) -> None:
    decide("good")
    (layout.home(NAME) / "1" / EXTRA / "golden.npz").write_bytes(b"forged")
    checksums.write_digests(layout.home(NAME) / "1")
    kept = decide("good")
    assert (kept.code, kept.version) == ("kept_not_comparable", 1)
    assert "version 1 is not as it was published" in kept.reason
    assert decide("good", not_comparable="floors_only").version == 2, "the good one is published anew"


def test_a_stray_folder_is_not_the_champion_and_is_named_in_the_log(
    decide: Decide, caplog: pytest.LogCaptureFixture
) -> None:
    decide("good")
    (layout.home(NAME) / "99").mkdir()
    assert decide("good").code == "unchanged"
    assert "99 is not a version that layerflow published, and a server" in caplog.text


def test_the_receipt_says_how_the_model_came_about(decide: Decide, contenders: dict[str, Challenger]) -> None:
    decide("poor")
    made, good = decide("good"), contenders["good"]
    receipt = json.loads(store.path(made.receipt).read_text())
    assert store.path(made.receipt) == store.path(made.published or "") / EXTRA / "receipt.json"
    assert receipt["version"] == 2
    assert receipt["config"]["training"]["epochs"] == RetrainConfig().training.epochs
    assert receipt["data"]["digest"] == good.data.digest
    assert receipt["evaluation"]["accuracy"] == good.evaluation.accuracy
    assert receipt["export"]["files"] == good.export.files
    assert receipt["decision"]["code"] == "promoted_better"
    assert receipt["decision"]["comparison"]["champion_version"] == 1
    assert receipt["versions"]["tensorflow"].startswith("2.")
    assert set(receipt["history"][0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    for key in ("seed", "code", "verification", "trained", "model", "flow_run", "created"):
        assert key in receipt


def test_no_secret_of_an_address_is_in_a_decision(
    contenders: dict[str, Challenger], shelf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    address, shown = "https://operator:Zq7secret@tickets/7?token=Zq7secret", []
    promote(RetrainConfig(), contenders["good"], "run")
    champion = layout.home(NAME) / "1" / layout.RECEIPT
    unmasked = json.loads(champion.read_text())
    unmasked["config"]["data"]["module"] = address  # as an earlier layerflow wrote it
    champion.write_text(json.dumps(unmasked))
    config = RetrainConfig.model_validate({"gate": {"force": f"see {address}"}})
    made = promote(config, contenders["similar"], "run", shown.append)
    assert made.code == "promoted_forced"
    assert made.reason.startswith("forced (see https://***@tickets/7?***")
    assert "https://***@tickets/7?***" in [change.before for change in made.changes]
    kept = store.path(made.receipt).read_text() + store.path(made.report).read_text()
    assert "Zq7secret" not in made.model_dump_json() + kept + "".join(shown) + caplog.text


def test_the_receipt_of_a_kept_model_is_kept_too(decide: Decide) -> None:
    decide("good")
    made = decide("poor")
    receipt = json.loads(store.path(made.receipt).read_text())
    assert receipt["decision"]["code"] == "kept_worse"
    assert receipt["version"] is None


def test_what_differs_between_two_receipts_is_told_by_field() -> None:
    before = {"data": {"digest": "a", "folder": "x"}, "config": {"training": {"epochs": 5}}, "code": "c"}
    after = {"data": {"digest": "b", "folder": "y"}, "config": {"training": {"epochs": 6, "seed": 1}}, "code": "c"}
    found = [(change.field, change.before, change.after) for change in changes(before, after)]
    assert found == [("data.digest", "a", "b"), ("config.training.epochs", 5, 6), ("config.training.seed", None, 1)]
