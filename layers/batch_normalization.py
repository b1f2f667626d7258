"""Normalisation over the batch."""

from typing import Any

import keras
from keras import ops

from layers.arguments import features, positive_number, share


@keras.saving.register_keras_serializable(package="layers")
class BatchNormalization(keras.layers.Layer):
    """Each feature with the batch's mean taken off and divided by its standard deviation, then scaled and moved.

    In training the batch's own statistics are used, and moving averages of them are kept; otherwise those averages.
    They are weights, for they belong to what was learned, but not trainable ones: no gradient changes them. With
    ``trainable = False`` the layer is frozen: it uses the averages in training, too, and keeps them.

    Where several replicas or workers share a batch, each normalises its share with the share's own statistics, as if
    the batch were so small, and moves its own averages; whoever trains them takes the mean.

    Args:
        momentum: Share of the old average that stays at each step.
        epsilon: Added to the variance.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point tensor ``(batch, ..., features)``.
        training: Whether the batch's own statistics are used.

    Returns:
        Tensor of the input's shape in the compute dtype; the statistics are computed in float32.

    Raises:
        ValueError: If an argument is out of its range, or the last axis has no fixed size.

    References:
        Ioffe and Szegedy, Batch normalization (2015).
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = share("momentum", momentum)
        self.epsilon = positive_number("epsilon", epsilon)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``gamma``, ``beta``, ``moving_mean`` and ``moving_variance``, each of shape ``(features,)``."""
        size = features("BatchNormalization", input_shape)
        shape = (size,)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        moving = {"shape": shape, "trainable": False, "autocast": False}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        x = ops.cast(inputs, "float32")
        if training and self.trainable:
            mean, variance = ops.moments(x, axes=list(range(len(inputs.shape) - 1)))
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + value * (1 - self.momentum))
        else:
            mean, variance = self.moving_mean.value, self.moving_variance.value
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(variance + self.epsilon)
        offset = ops.cast(self.beta, "float32") - mean * scale  # of one number a feature, not of every input
        return ops.cast(x * scale + offset, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
