"""A network that adds to its loss in each of Keras' ways: for weights, for activities, and by ``add_loss``."""

from typing import Any

import keras
from keras import ops

from layers import Dropout, Flatten, Rescale


@keras.saving.register_keras_serializable(package="penalised")
class Penalised(keras.Model):
    """Two dense layers. ``rate``: of the dropout between them, after one addition and before the others."""

    def __init__(self, classes: int, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes, self.rate = classes, rate
        self.rescale, self.flatten, self.dropout = Rescale(), Flatten(), Dropout(rate, seed=1)
        self.hidden = keras.layers.Dense(
            16, "relu", kernel_regularizer=keras.regularizers.L2(0.05), activity_regularizer=keras.regularizers.L2(0.02)
        )
        self.logits = keras.layers.Dense(classes, bias_regularizer=keras.regularizers.L1(0.1))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = tuple(input_shape)
        for layer in (self.rescale, self.flatten, self.hidden, self.dropout, self.logits):
            layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))

    def call(self, images: Any, training: bool | None = False) -> Any:
        x = self.hidden(self.flatten(self.rescale(images)))
        logits = self.logits(self.dropout(x, training=training))
        self.add_loss(0.3 * ops.mean(ops.square(logits)))
        return logits

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "rate": self.rate}
