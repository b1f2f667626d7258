"""What comes out of a sweep: its trials, the best of them, and what became of it.

Imports neither TensorFlow nor Prefect.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained


class StudyRef(BaseModel):
    """Where a sweep keeps its trials in the store, the metric that compares them, and the epochs before pruning."""

    model_config = ConfigDict(frozen=True)

    folder: str
    monitor: str
    warm_up: int


class Trial(BaseModel):
    """One training of a sweep: its settings by field, the validation's figure of each epoch, and of the best one."""

    model_config = ConfigDict(frozen=True)

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    value: float | None
    settings: dict[str, object]
    curve: tuple[float, ...]
    seconds: float
    reason: str


class SweepResult(BaseModel):
    """The trials of a sweep, the best of them and its config; ``card`` is the Markdown file for people."""

    model_config = ConfigDict(frozen=True)

    monitor: str
    trials: tuple[Trial, ...]
    winner: Trial
    config: RetrainConfig
    card: str


class SweepOutcome(BaseModel):
    """All that one run of the flow `sweep` made: the result of the search, and what became of the best."""

    model_config = ConfigDict(frozen=True)

    result: SweepResult
    retrained: Retrained
