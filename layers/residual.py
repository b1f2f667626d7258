"""A branch whose input is added to its output."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from layers.conv2d import Conv2D
from layers.dense import Dense


@keras.saving.register_keras_serializable(package="layers")
class Residual(keras.layers.Layer):
    """``x + branch(x)``; where the shapes differ, ``x`` is projected to the branch's by a learned linear map.

    Of images the projection is a convolution of one pixel, with the branch's strides; of anything else, a dense map of
    the last axis.

    Args:
        branch: Layers that are called one after the other.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point tensor of a shape that the branch takes.
        training: Passed on to the layers that take it.

    Returns:
        Tensor of the branch's output shape.

    Raises:
        ValueError: If ``branch`` is empty or has an element that is not a layer, or no projection leads to its output's
            shape.

    References:
        He et al., Deep residual learning for image recognition (2015).
    """

    def __init__(self, branch: Sequence[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = list(branch)
        if not self.branch or not all(isinstance(layer, keras.layers.Layer) for layer in self.branch):
            raise ValueError(f"`branch` must be a list of one layer or more. Received: branch={branch!r}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the branch, and the projection where one is needed."""
        shape = tuple(input_shape)
        for layer in self.branch:
            if not layer.built:
                layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))
        self.projection = self._projection(tuple(input_shape), shape)
        if self.projection:
            self.projection.build(input_shape)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        x = inputs
        for layer in self.branch:
            x = layer(x)  # Keras hands `training` on
        return ops.add(x, self.projection(inputs) if self.projection else inputs)

    def _projection(self, old: tuple[Any, ...], new: tuple[Any, ...]) -> Any:
        if old == new:
            return None
        settings: dict[str, Any] = {"use_bias": False, "dtype": self.dtype_policy, "name": "projection"}
        if len(old) == len(new) == 4 and None not in (*old[1:], *new[1:]):
            layer: Any = Conv2D(new[-1], 1, (-(-old[1] // new[1]), -(-old[2] // new[2])), "same", **settings)
        else:
            layer = Dense(new[-1], **settings)
        if tuple(layer.compute_output_shape(old)) != new:
            raise ValueError(f"`Residual` can't project its input {old} to its branch's output {new}.")
        return layer

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape = tuple(input_shape)
        for layer in self.branch:
            shape = tuple(layer.compute_output_shape(shape))
        return shape

    def get_config(self) -> dict[str, Any]:
        branch = [keras.saving.serialize_keras_object(layer) for layer in self.branch]
        for layer in branch:
            layer.pop("build_config", None)  # the input's shape is no part of what the layer is
        return {**super().get_config(), "branch": branch}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Residual":
        branch = [keras.saving.deserialize_keras_object(layer) for layer in config.pop("branch")]
        return cls(branch, **config)
