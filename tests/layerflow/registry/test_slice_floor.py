"""The slices of the test images on their way to a decision, with a model whose middle camera has failed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cli.output import _lowest_slice
from layerflow import artifacts, store
from layerflow.cards import decision as decision_card
from layerflow.cards import evaluation as evaluation_card
from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.errors import VerificationError
from layerflow.export.verifier import checks
from layerflow.export.verifier.refusal import RefusedError
from layerflow.outcomes import Promotion
from layerflow.records import Evaluation, Verification
from layerflow.registry.gate import below_floor, disagreement
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.scores import SliceScore
from layerflow.settings.gate import GateConfig
from tests.layerflow.conftest import CAMERAS, VERIFIER

NAMES = [*(("camera", each) for each in CAMERAS), ("night", ""), ("night", "1")]


def wilson(right: int, examples: int) -> tuple[float, float]:
    """Wilson's interval by the formula of his paper."""
    share, z = right / examples, 1.959964
    centre = share + z * z / (2 * examples)
    half = z * (share * (1 - share) / examples + z * z / (4 * examples**2)) ** 0.5
    return (centre - half) / (1 + z * z / examples), (centre + half) / (1 + z * z / examples)


def decided(challenger: Challenger, **gate: object) -> Promotion:
    settings = {"gate": {"min_class_recall": 0} | gate, "data": {"slices": "camera,night"}}
    return promote(RetrainConfig.model_validate(settings), challenger, "run", verifier=VERIFIER)


def test_figures_of_slices_are_those_counted_from_the_predictions(sliced: Challenger) -> None:
    evaluation = sliced.evaluation
    labels = images_and_labels(sliced.data, "test")[1]
    right = np.load(store.path(evaluation.predictions)).argmax(axis=1) == labels
    place = np.arange(360)
    masks = [*(place % 3 == number for number in range(3)), place % 20 > 0, place % 20 == 0]
    assert [(score.column, score.value) for score in evaluation.slices] == NAMES
    for score, mask in zip(evaluation.slices, masks, strict=True):
        assert (score.examples, score.right) == (mask.sum(), right[mask].sum())
        assert score.accuracy == right[mask].mean()
        assert (score.accuracy_low, score.accuracy_high) == pytest.approx(wilson(score.right, score.examples))
    verified = sliced.verification
    assert verified.slice_examples == tuple(int(mask.sum()) for mask in masks)
    assert verified.slice_right == tuple(int(right[mask].sum()) for mask in masks)
    assert evaluation.slices[1].accuracy < 0.3 < 0.9 < evaluation.slices[0].accuracy


def test_a_camera_that_fails_keeps_the_model_and_is_the_reason(sliced: Challenger) -> None:
    kept = decided(sliced, min_slice=0.5, force="ship it")
    middle = sliced.evaluation.slices[1]
    assert kept.code == "kept_below_floor"
    said = f"accuracy {middle.accuracy:.4f} of slice camera=middle ({middle.right} of 120) is below gate.min_slice 0.5"
    assert kept.reason == said
    receipt = json.loads(store.path(kept.receipt).read_text())
    assert receipt["evaluation"]["slices"][1] == middle.model_dump()
    assert decided(sliced, min_slice=0.5, min_slice_examples=121).code == "promoted_first", "no camera is judged"


def test_slices_too_small_to_be_judged_keep_the_model(sliced: Challenger) -> None:
    kept = decided(sliced, min_slice=0.1, min_slice_examples=343)
    assert kept.code == "kept_below_floor"
    said = "no slice has gate.min_slice_examples 343 test images, so that gate.min_slice can't be checked"
    assert kept.reason == said


def test_a_slice_that_was_praised_in_the_evaluation_is_refused(sliced: Challenger) -> None:
    evaluation = sliced.evaluation
    praised = [score.model_copy(update={"right": score.examples}) for score in evaluation.slices]
    forgeries = [praised, [], evaluation.slices[::-1], evaluation.slices[:3]]
    for slices in forgeries:
        forged = sliced._replace(evaluation=evaluation.model_copy(update={"slices": tuple(slices)}))
        with pytest.raises(VerificationError, match=r"must agree on the model that is to be published; .*slice"):
            decided(forged, min_slice=0.8)


def figures(**counts: tuple[int, int]) -> tuple[Evaluation, Verification]:
    """An evaluation and a verification of slices with these examples and right answers, and of nothing else."""
    scores = tuple(
        SliceScore(column="camera", value=name, examples=examples, right=right, accuracy_low=0, accuracy_high=1)
        for name, (examples, right) in counts.items()
    )
    per_class = {"accuracy": 0.8, "test_examples": 0, "per_class": (), "loss": 1.0}
    examples, right = zip(*counts.values(), strict=True)
    verified = {"class_examples": (), "class_right": (), "class_predicted": (), "test_accuracy": 0.0, "ties": 1}
    slices = {"slice_examples": examples, "slice_right": right, "test_examples": 0, "latency_p99_ms": 1.0}
    return (
        Evaluation.model_construct(None, **per_class, slices=scores),
        Verification.model_construct(None, **verified, **slices),
    )


def test_a_slice_is_judged_by_the_verified_answers(contenders: dict[str, Challenger]) -> None:
    good, (scored, proved) = contenders["good"], figures(left=(40, 40), right=(29, 0))
    evaluation = good.evaluation.model_copy(update={"slices": scored.slices})

    def floor(right: tuple[int, int], **gate: float) -> str | None:
        update = {"slice_examples": proved.slice_examples, "slice_right": right}
        return below_floor(GateConfig(**gate), evaluation, good.verification.model_copy(update=update))

    assert floor((20, 0), min_slice=0.5) is None, "29 images of the other camera are not judged"
    said = "accuracy 0.4750 of slice camera=left (19 of 40) is below gate.min_slice 0.5"
    assert floor((19, 0), min_slice=0.5) == said
    assert "slice camera=right (0 of 29)" in (floor((19, 0), min_slice=0.5, min_slice_examples=29) or "")
    assert floor((0, 0)) is None, "no floor by default"


def test_a_tie_in_a_slice_may_be_broken_either_way_and_nothing_else() -> None:
    scored, proved = figures(left=(40, 20))
    assert disagreement(scored, proved) is None
    assert disagreement(scored, proved.model_copy(update={"slice_right": (21,)})) is None
    said = disagreement(scored, proved.model_copy(update={"slice_right": (22,)}))
    assert said == "of slice camera=left 20 of 40 are right, and 22 verified"
    assert "of the slices differ" in (disagreement(scored, proved.model_copy(update={"slice_examples": (39,)})) or "")


def test_the_verifier_counts_slices_and_refuses_those_of_other_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows, right = np.stack([random.integers(0, 3, 40), random.integers(3, 7, 40)], axis=1), random.random(40) < 0.7

    def counted(rows: np.ndarray) -> dict[str, list[int]]:
        np.save(tmp_path / "rows.npy", rows.astype(np.int32))
        return checks.count_slices({"test_slices": str(tmp_path / "rows.npy")}, right)

    assert counted(rows) == {
        "slice_examples": [int((rows == number).sum()) for number in range(7)],
        "slice_right": [int((rows[right] == number).sum()) for number in range(7)],
    }
    for other in (rows[:-1], rows - 1, rows * 1_000_000, rows[:, 0]):
        with pytest.raises(RefusedError, match="the slices are not those of the test split"):
            counted(other)
    assert checks.count_slices({}, right) == {}


def test_the_cards_and_the_terminal_say_which_slice_is_lowest(sliced: Challenger, tmp_path: Path) -> None:
    evaluation, middle = sliced.evaluation, sliced.evaluation.slices[1]
    shutil.copy(store.path(evaluation.predictions), tmp_path)
    evaluation_card.write_card(evaluation, sliced.trained, sliced.data, tmp_path)
    card = (tmp_path / "card.md").read_text()
    table = card.partition("## Slices")[2].partition("## Calibration")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 5
    assert rows[0] == (
        f"| camera | middle | 120 | {120 - middle.right} | {middle.accuracy:.4f} | "
        f"{middle.accuracy_low:.4f} to {middle.accuracy_high:.4f} |"
    )
    assert "| night | *not given* | 342 |" in table
    assert "more are not shown" not in table
    made = decided(sliced, min_slice=0.8)
    drawn = decision_card.draw(GateConfig(), made, evaluation, sliced.data)
    assert f"- **Lowest slice:** camera=middle: accuracy {middle.accuracy:.4f} on 120 images" in drawn
    said = {"column": "camera", "value": "middle", "examples": 120, "accuracy": middle.accuracy}
    assert _lowest_slice(evaluation) == said


def test_the_card_shows_twenty_slices_and_a_wrong_image_alone_is_not_the_lowest() -> None:
    many = [(10 + number, 5 + number) for number in range(24)]
    evaluation, _ = figures(**{f"c{number}": counts for number, counts in enumerate(many)}, one=(1, 0))
    intervals = [wilson(each.right, each.examples) for each in evaluation.slices]
    slices = [
        score.model_copy(update={"accuracy_low": low, "accuracy_high": high})
        for score, (low, high) in zip(evaluation.slices, intervals, strict=True)
    ]
    evaluation = evaluation.model_copy(update={"slices": tuple(slices)})
    assert evaluation.lowest_slice == slices[0]
    told, table = evaluation_card._slices(evaluation)[1:]
    assert "5 more are not shown" in told
    assert len(table.splitlines()) == 22
    assert evaluation_card._slices(evaluation.model_copy(update={"slices": ()})) == []


def test_records_of_an_earlier_layerflow_have_no_slices(contenders: dict[str, Challenger]) -> None:
    good = contenders["good"]
    for record in (good.data, good.evaluation, good.verification):
        written = record.model_dump(exclude={"slices", "slices_digest", "slice_examples", "slice_right"})
        assert type(record).model_validate(written) == record
    artifacts.check_record(good.export)


def test_a_floor_for_slices_without_slices_is_refused_before_the_run() -> None:
    with pytest.raises(ValidationError, match=r"gate\.min_slice together with data\.slices"):
        RetrainConfig.model_validate({"gate": {"min_slice": 0.5}})
