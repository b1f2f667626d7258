"""How many of a folder's images a model recognizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerflow.data.image_folder_layout import brief
from layerflow.errors import UserError
from layerflow.evaluation.statistics import accuracy_interval


class Scores:
    """Counts answers by true and predicted class, while they come.

    Args:
        classes: The names of the model's classes, in the order of their numbers.

    Example:
        >>> scores = Scores(["cat", "dog"])
        >>> scores.add("cat", 0)
        >>> scores.as_json()["accuracy"]
        1.0
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._numbers = {name: number for number, name in enumerate(classes)}

    def require_known(self, names: Sequence[str]) -> None:
        """Check that the model knows the classes.

        Raises:
            UserError: If the model doesn't know one of them.
        """
        if unknown := [name for name in names if name not in self._numbers]:
            known = ", ".join(map(brief, self.classes[:20]))
            raise UserError(
                f"Each folder must be named like a class of the model: {known}. Received: {brief(unknown[0])}; rename "
                "or move it."
            )

    def add(self, name: str, predicted: int) -> None:
        """Count an image of the class ``name``."""
        self.confusion[self._numbers[name], predicted] += 1

    @property
    def images(self) -> int:
        """How many images were answered."""
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        """How many of them were recognized."""
        return int(self.confusion.trace())

    def as_json(self) -> dict[str, Any]:
        """Accuracy with its 95 % interval, recall by class, and the confusion matrix, rows by true class."""
        low, high = accuracy_interval(self.right, self.images)
        counts = self.confusion.sum(axis=1)
        recalls = {
            name: float(self.confusion[number, number] / counts[number])
            for number, name in enumerate(self.classes)
            if counts[number]
        }
        return {
            "images": self.images,
            "accuracy": self.right / self.images,
            "accuracy_low": low,
            "accuracy_high": high,
            "recall": recalls,
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }
