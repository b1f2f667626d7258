"""Dropout whose masks come back after a restart."""

import random
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="layers")
class Dropout(keras.layers.Layer):
    """Leave out a random share of the inputs in training, and scale the others up so that the mean stays.

    The mask of a call is decided by the seed and by how many calls in training there were before. Both are a weight,
    ``key``, though not a trainable one: saved with the others, it brings the same masks after a restart.

    Args:
        rate: Share that is left out, at least 0 and below 1.
        seed: A whole number from 0. Default: drawn from Python's ``random``, set by ``keras.utils.set_random_seed``.
        **kwargs: What every Keras layer takes: ``name``, ``dtype``, ``trainable``.

    Call arguments:
        inputs: Floating-point tensor of any shape.
        training: Whether anything is left out; otherwise the inputs pass through.

    Returns:
        Tensor of the input's shape and dtype.

    Raises:
        ValueError: If ``rate`` or ``seed`` is out of its range.

    References:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting (2014).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"`rate` must be a number of at least 0 and below 1. Received: rate={rate!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"`seed` must be a whole number from 0. Received: seed={seed!r}")
        self.rate = rate
        self.seed = random.randrange(2**31) if seed is None else seed
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``key``: the seed, and how many masks were drawn."""
        self.key = self.add_weight(
            name="key",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: ops.convert_to_tensor([self.seed, 0], dtype),
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training or not self.rate:
            return inputs
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group  # each sees images of its own
        key = ops.stack([self.key[0] + ops.cast(replica, "int64"), self.key[1]])
        self.key.assign_add([0, 1])
        # TensorFlow, because Keras leaves the algorithm to it, and what it chooses makes an epoch under XLA seven times
        # as long as Philox; whole numbers, because XLA makes other fractions of the same bits.
        draws = tf.random.stateless_uniform(ops.shape(inputs), key, None, None, tf.uint32, alg="philox")
        kept = draws >= tf.constant(int(self.rate * 2**32), tf.uint32)
        return ops.where(kept, inputs * (1 / (1 - self.rate)), ops.zeros_like(inputs))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
