"""The tutorial's network: flatten, dense layers with ReLU between them."""

from collections.abc import Sequence
from typing import Any

import keras

from layerflow.models.classifier import Classifier
from layers import Dense, Dropout, Flatten, ReLU


@keras.saving.register_keras_serializable(package="layerflow")
class Mlp(Classifier):
    """A multilayer perceptron.

    Args:
        classes: Number of classes.
        hidden: Units of each hidden layer; empty gives a linear classifier.
        dropout: Share of each hidden layer's outputs that training leaves out.
        **kwargs: As for ``Classifier``: ``shift``, ``flip``.
    """

    def __init__(self, classes: int, hidden: Sequence[int] = (64,), dropout: float = 0.0, **kwargs: Any) -> None:
        hidden = tuple(hidden)
        body: list[Any] = [Flatten()]
        for units in hidden:
            body += [Dense(units), ReLU(), *([Dropout(dropout)] if dropout else [])]
        super().__init__(body, classes, **kwargs)
        self.hidden, self.dropout = hidden, dropout

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": list(self.hidden), "dropout": self.dropout}
