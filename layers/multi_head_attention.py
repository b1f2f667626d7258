"""Self-attention with several heads."""

import math
from typing import Any

import keras
from keras import ops

from layers.arguments import fixed, positive_integer


@keras.saving.register_keras_serializable(package="layers")
class MultiHeadAttention(keras.layers.Layer):
    """Every token gathers from all tokens, by how well their keys answer its query; each head in its own way.

    Args:
        heads: Number of heads, a positive integer that divides the features.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point tokens ``(batch, tokens, features)``.
        mask: Boolean ``(batch, tokens)``: which tokens are there; nothing is gathered from the others. Default: all.

    Returns:
        Tensor of the input's shape in the compute dtype.

    Raises:
        ValueError: If ``heads`` is out of its range or does not divide the features.

    References:
        Vaswani et al., Attention is all you need (2017).
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = positive_integer("heads", heads)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``query_w`` ``(features, features)`` and ``query_b`` ``(features,)``; the same for ``key``, ``value``
        and ``output``.
        """
        fixed("MultiHeadAttention", input_shape, 3, -1)
        features = input_shape[-1]
        if features % self.heads:  # type: ignore[operator]
            raise ValueError(
                f"`heads` must divide the features. Received: heads={self.heads}, input_shape={tuple(input_shape)}"
            )
        self.maps = {
            name: (
                self.add_weight(name=f"{name}_w", shape=(features, features), initializer="glorot_uniform"),
                self.add_weight(name=f"{name}_b", shape=(features,), initializer="zeros"),
            )
            for name in ("query", "key", "value", "output")
        }

    def call(self, inputs: Any, mask: Any = None) -> Any:
        features = inputs.shape[-1]
        tokens, size = ops.shape(inputs)[1], features // self.heads

        def split(name: str) -> Any:  # (batch, heads, tokens, size)
            return ops.transpose(ops.reshape(self._map(name, inputs), (-1, tokens, self.heads, size)), (0, 2, 1, 3))

        query, key, value = split("query"), split("key"), split("value")
        # The softmax in float32: a sum over many tokens loses the small shares in half precision.
        scores = ops.cast(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), "float32") / math.sqrt(size)
        if mask is not None:
            scores = ops.where(mask[:, None, None, :], scores, -1e9)
        shares = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        gathered = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))
        return self._map("output", ops.reshape(gathered, (-1, tokens, features)))

    def _map(self, name: str, x: Any) -> Any:
        w, b = self.maps[name]
        return ops.matmul(x, w) + b

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}
