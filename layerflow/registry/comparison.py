"""The new model against a published version: on which images, and what came out."""

import logging
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerflow import artifacts, store
from layerflow.data.arrays import labels_of
from layerflow.data.slices import slices_of
from layerflow.export import process, verification
from layerflow.outcomes import Comparison
from layerflow.registry import layout, shared
from layerflow.registry.figures import Answers, by_metric, comparison_of
from layerflow.registry.known_images import ComparedImages, KnownImages, all_test_images, common_test_set
from layerflow.registry.model_identity import model_identity
from layerflow.registry.receipt import Challenger, damage_of_files
from layerflow.settings.gate import GateConfig
from layerflow.settings.model import VERSION

log = logging.getLogger(__name__)


class Rival(NamedTuple):
    """A published version that the new model is compared with.

    Attributes:
        receipt: Its receipt, where it has one.
        damage: What of it is not as it was published.
    """

    version: int
    folder: Path
    receipt: dict[str, Any] | None
    damage: str | None

    @property
    def is_sound(self) -> bool:
        """Whether it is as it was published, with its receipt."""
        return self.receipt is not None and not self.damage

    @property
    def model(self) -> str:
        """Which model it is; it must have a receipt."""
        assert self.receipt
        return model_identity(self.receipt)

    @property
    def classes(self) -> list[str]:
        """The names of its classes; it must have a receipt."""
        assert self.receipt
        return list(self.receipt["data"]["classes"])


def compare(
    gate: GateConfig,
    challenger: Challenger,
    rival: Rival,
    learned: Callable[[], KnownImages],
    verifier: process.Verifier | None = None,
) -> Comparison | str:
    """Score both on the test images that neither has learned from, or say why they can't be compared.

    Args:
        learned: What gives the images that the challenger has learned from; asked where that decides.

    Raises:
        VerificationError: If the challenger itself fails.
        DamagedError: If the test images are not as they were prepared.
    """
    version = rival.version
    if rival.receipt is None:
        return f"version {version} carries no receipt to be compared by"
    if rival.damage:
        return f"version {version} is not as it was published: {rival.damage}"
    if gate.classes == "new_allowed" and (lost := sorted(set(rival.classes) - set(challenger.data.classes))):
        return f"version {version} knows the class {lost[0]} and the new model does not; set gate.classes common"
    tests = _test_set(challenger, rival, learned)
    if isinstance(tests, str):
        return tests
    if gate.classes != "same":
        tests = _of_known_classes(challenger, rival, tests)
    if len(tests.rows) < gate.min_test_examples:
        known = "" if gate.classes == "same" else ", of a class that both know"
        return (
            f"only {len(tests.rows)} of the test images are ones that neither version {version} nor the new model has "
            f"learned from{known}; gate.min_test_examples is {gate.min_test_examples}"
        )
    by_answers = gate.metric != "accuracy" or bool(challenger.data.slices)
    report = verification.score_both(
        store.path(challenger.export.saved_model),
        rival.folder,
        challenger.data,
        tests.rows.tolist(),
        verifier,
        other_classes=gate.classes != "same",
        answers=by_answers,
    )
    if "not_comparable" in report:
        return f"version {version} can't be scored: {report['not_comparable']}"
    left_out = challenger.data.counts["test"] - len(tests.rows)
    found = comparison_of(version, report, new=tests.new, left_out=left_out, test_set=tests.digest)
    if not by_answers:
        return found
    labels = np.asarray(labels_of(challenger.data, "test"))[tests.rows]
    answers = Answers.of(labels, report["answers"], challenger.data.classes, rival.classes)
    slices = slices_of(challenger.data)
    return by_metric(gate, found, answers, slices._replace(numbers=slices.numbers[tests.rows]))


def learned_by(challenger: Challenger) -> KnownImages:
    """The images that the new model has learned from, and those of the version whose weights it started from.

    Raises:
        DamagedError: If the data are not as they were prepared.
    """
    artifacts.check_record(challenger.data)
    weights, before = challenger.model.weights, None
    if weights and (named := re.fullmatch(VERSION, weights.source)):
        shared.bring(named[1], int(named[2]))
        folder = layout.home(named[1]) / named[2]
        before = None if damage_of_files(folder) else _read(folder)
        if before is None:
            log.warning("which images %s has learned from is not known; they count as not learned", weights.source)
    return KnownImages.of(challenger.data, before)


def _test_set(challenger: Challenger, rival: Rival, learned: Callable[[], KnownImages]) -> ComparedImages | str:
    """The test images that neither has learned from, or why it is not known which those are."""
    assert rival.receipt
    version, theirs = rival.version, _read(rival.folder)
    if rival.receipt["evaluation"]["test_digest"] != challenger.evaluation.test_digest:
        if theirs is None:
            return f"version {version} was scored on other test examples, and it does not list what it learned from"
        rule, their_rule = challenger.data.image_rule, rival.receipt["data"].get("image_rule")
        if rule != their_rule:
            return f"version {version} saw its images in another form: {their_rule}; the new model: {rule}"
    ours = learned()
    return common_test_set(challenger.data, ours, theirs) if theirs else all_test_images(challenger.data)


def _of_known_classes(challenger: Challenger, rival: Rival, tests: ComparedImages) -> ComparedImages:
    """Those of the test images whose class the rival knows too."""
    known = np.isin(np.array(challenger.data.classes), rival.classes)
    labels = np.asarray(labels_of(challenger.data, "test"))
    return tests.keep(known[labels[tests.rows]])


def _read(folder: Path) -> KnownImages | None:
    """The list of images of a version; none in one of an earlier layerflow."""
    try:
        return KnownImages.read(folder / layout.IMAGES)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s can't be read: %s", folder / layout.IMAGES, error)
        return None
