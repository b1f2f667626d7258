"""How good a model is on a part of the test images: on those of a class, and on those of a slice."""

from pydantic import BaseModel, ConfigDict


class ClassScore(BaseModel):
    """How well one class was distinguished from the others."""

    model_config = ConfigDict(frozen=True)

    name: str
    precision: float
    recall: float
    f1: float
    examples: int


class SliceScore(BaseModel):
    """How good the model is on the test images with one ``value`` of a ``column``, empty where none was given.

    The interval of the accuracy is Wilson's, at 95 %.
    """

    model_config = ConfigDict(frozen=True)

    column: str
    value: str
    examples: int
    right: int
    accuracy_low: float
    accuracy_high: float

    @property
    def accuracy(self) -> float:
        """The share of the images that are right."""
        return self.right / self.examples

    @property
    def name(self) -> str:
        """Column and value, such as ``camera=left``."""
        return slice_name(self.column, self.value)


def slice_name(column: str, value: str) -> str:
    """As people read it, such as ``camera=left``; the value is empty where none was given."""
    return f"{column}={value}" if value else f"{column} not given"
