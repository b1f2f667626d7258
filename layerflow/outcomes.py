"""What comes out of the flow `retrain` and of a rollback: above all the decision about a model.

Apart from ``records``, so that a change here is no change of what the steps before the decision make. Imports neither
TensorFlow nor Prefect.
"""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from layerflow.findings import Finding
from layerflow.records import (
    Change,
    Check,
    DataReport,
    DatasetRef,
    Evaluation,
    ExportRef,
    ModelRef,
    Record,
    TrainedRef,
    Verification,
)
from layerflow.scores import slice_name

#: What was decided about a model; the part before the first underscore is its status.
DecisionCode = Literal[
    "promoted_first",  # there was no champion, and the floors are met
    "promoted_better",  # significantly better
    "promoted_not_worse",  # within noise and margin
    "promoted_not_comparable",  # gate.not_comparable says that the floors decide
    "promoted_formats",  # this very model is in service, and gets other formats
    "promoted_forced",  # gate.force, against the comparison
    "kept_worse",  # significantly worse, or below the margin
    "kept_within_noise",  # gate.rule better, and it is not significantly so
    "kept_below_floor",  # a floor is not met, the baseline is not beaten, or a figure is missing
    "kept_too_slow",  # above gate.max_latency_ratio
    "kept_not_comparable",  # the champion can't be scored on these test examples
    "kept_rolled_back",  # this very model was live and was rolled back
    "waiting_for_approval",  # gate.approval: it waits as a candidate until a person answers
    "kept_rejected",  # a person rejected it
    "kept_unanswered",  # nobody answered within gate.approval_days
    "kept_obsolete",  # a newer run asked about another model, or published one
    "kept_overtaken",  # approved, but the live version had changed since the question
    "unchanged",  # this very model is in service
    "refused_unverified",  # the verification is of another export, or disagrees with the evaluation
]


class Side(BaseModel):
    """One of two compared models, as it ships, on the test examples."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    lowest_recall: float
    lowest_class: str
    latency_p50_ms: float
    latency_p99_ms: float
    score: float | None = None  # in `Comparison.metric`, where that is not the accuracy


class SliceComparison(BaseModel):
    """Both models on the test images of one slice.

    ``champion`` and ``challenger`` are their figures, ``difference`` is by how much the challenger is better.
    ``p_value`` is corrected for the number of slices.
    """

    model_config = ConfigDict(frozen=True)

    column: str
    value: str
    examples: int
    champion: float
    challenger: float
    difference: float
    p_value: float

    @property
    def name(self) -> str:
        """Column and value, such as ``camera=left``."""
        return slice_name(self.column, self.value)


class Comparison(BaseModel):
    """Challenger and champion on the same test examples, in one process.

    The examples are the test images that neither has learned from, of the classes that both know. ``new`` of them
    the champion was not tested on when it was published; ``left_out`` are the other test images. ``test_set`` is the
    SHA-256 of the digests of those that were compared: figures of another set are no figures of this one.

    ``difference`` is by how much the challenger is better in ``metric``, negative if it is worse. ``method`` names the
    test that ``p_value`` is of.
    """

    model_config = ConfigDict(frozen=True)

    champion_version: int
    champion: Side
    challenger: Side
    both_right: int
    only_challenger: int
    only_champion: int
    both_wrong: int
    metric: str = "accuracy"
    method: str = "exact McNemar"
    p_value: float
    difference: float
    difference_low: float
    difference_high: float
    new: int = 0
    left_out: int = 0
    test_set: str = ""
    slices: tuple[SliceComparison, ...] = ()
    look: int = 0  # how many comparisons there were on these test images, or mostly these, with this one

    @property
    def examples(self) -> int:
        """How many test images were compared."""
        return self.both_right + self.only_challenger + self.only_champion + self.both_wrong

    @property
    def scores(self) -> tuple[float, float]:
        """The champion's figure in ``metric``, and the challenger's."""
        sides = (self.champion, self.challenger)
        champion, challenger = (side.accuracy if side.score is None else side.score for side in sides)
        return champion, challenger

    @property
    def difference_word(self) -> str:
        """What ``difference`` is called: of some figures, less is better."""
        return "difference" if self.metric == "accuracy" else "improvement"

    @property
    def deviation(self) -> float:
        """The standard deviation of ``difference``, by its interval for other figures than the accuracy."""
        if self.metric == "accuracy":
            return math.sqrt(self.only_challenger + self.only_champion) / self.examples
        return (self.difference_high - self.difference_low) / 3.92  # of a normal distribution, 95 % are so wide

    @property
    def images_text(self) -> str:
        """How many test images were compared, as text."""
        others = [f"{self.new:,} of them new"] if self.new else []
        others += [f"{self.left_out:,} left out"] if self.left_out else []
        return f"{self.examples:,} images" + (f" ({', '.join(others)})" if others else "")


class Approval(BaseModel):
    """A person's answer about a candidate; ``when`` is in UTC, in the form of ISO 8601."""

    model_config = ConfigDict(frozen=True)

    approved: bool
    by: str
    reason: str
    when: str

    @property
    def text(self) -> str:
        """Who answered what, and why."""
        why = f": {self.reason}" if self.reason else ""
        return f"{'approved' if self.approved else 'rejected'} by {self.by}{why}"


class Promotion(Record):
    """The decision, and where the model is. ``version`` is the one in service after it, if any.

    Of a model about which a person is asked, ``candidate`` is its number, ``asked_by`` the ID of the flow run that
    asks, ``until`` when the question expires (UTC, ISO 8601), and ``approval`` the answer.
    """

    code: DecisionCode
    reason: str
    name: str
    version: int | None
    published: str | None
    accuracy: float
    test_examples: int
    champion_version: int | None
    comparison: Comparison | None
    best: Comparison | None = None  # with the best version, where that is another one
    changes: tuple[Change, ...]
    receipt: str
    report: str
    candidate: int | None = None
    asked_by: str = ""
    until: str = ""
    approval: Approval | None = None

    @property
    def status(self) -> str:
        """``promoted``, ``kept``, ``unchanged``, ``waiting`` or ``refused``."""
        return self.code.partition("_")[0]


class RolledBack(BaseModel):
    """A version that was restored: ``version`` is in service now, with the model of ``restored``."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    restored: int
    instead_of: int
    digest: str
    published: str


class FormatProof(BaseModel):
    """A model in one format. Where ``reason`` says why, it is not published; the figures are there if it ran at all.

    ``difference`` is of the accuracy, against the SavedModel on the same test examples; ``p_value`` is McNemar's.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    file: str = ""
    digest: str = ""
    size: int = 0
    reason: str | None = None
    runtime: str = ""
    checks: tuple[Check, ...] = ()
    test_accuracy: float | None = None
    difference: float | None = None
    p_value: float | None = None
    max_difference: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None


class FormatsProof(Record):
    """Each format that was asked for. ``formats/`` has the files of those that are proved, and is published."""

    export_digest: str
    formats: tuple[FormatProof, ...]

    @property
    def proved(self) -> dict[str, str]:
        """The SHA-256 of each file that is published."""
        return {each.file: each.digest for each in self.formats if each.reason is None}

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the files are those of the digests."""
        return {f"formats/{name}": digest for name, digest in self.proved.items()} == {
            name: digest for name, digest in files.items() if name.startswith("formats/")
        }


class OwnFindings(Record):
    """What your checks found in the data ``name``; ``check`` of a finding is the extension's name."""

    name: str
    data_digest: str
    findings: tuple[Finding, ...]


class OwnFigures(Record):
    """Your figures of a model's answers to the test images, by the extension's name."""

    predictions_digest: str
    values: dict[str, float]


class HandedOver(Record):
    """A version that a publisher has taken elsewhere."""

    name: str
    version: int


class Retrained(BaseModel):
    """All that one run of the flow `retrain` made."""

    model_config = ConfigDict(frozen=True)

    data: DatasetRef
    checked: DataReport
    model: ModelRef
    trained: TrainedRef
    evaluation: Evaluation
    export: ExportRef
    verification: Verification
    formats: FormatsProof | None = None
    own_checks: OwnFindings | None = None
    own_metrics: OwnFigures | None = None
    promotion: Promotion
