"""Randomness that comes back after a restart; what the random layers share."""

import random
from typing import Any

import keras
import tensorflow as tf
from keras import ops


class RandomLayer(keras.layers.Layer):
    """A layer that draws random numbers in training.

    What a call draws is decided by the seed, by how many calls in training there were before, and by the replica that
    it runs on. Seed and calls are a weight, ``key``, though not a trainable one: saved with the others, it brings the
    same numbers after a restart.

    Args:
        seed: A whole number from 0. Default: drawn from Python's ``random``, set by ``keras.utils.set_random_seed``.
        **kwargs: What every Keras layer takes.

    Raises:
        ValueError: If ``seed`` is not a valid seed.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"`seed` must be a whole number from 0. Received: seed={seed!r}")
        self.seed = random.randrange(2**31) if seed is None else seed
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``key``: the seed, and how often numbers were drawn."""
        self.key = self.add_weight(
            name="key",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: ops.convert_to_tensor([self.seed, 0], dtype),
            trainable=False,
            aggregation="only_first_replica",
        )

    def draw(self, shape: Any) -> Any:
        """Independent ``uint32`` numbers, each value equally likely; other ones at each call."""
        # Each replica sees images of its own. Its number has 32 bits of the key to itself: added to the seed, it would
        # give the stream of a layer with the next seed.
        replica = ops.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "int64")
        key = ops.stack([self.key[0], self.key[1] + replica * 2**32])
        self.key.assign_add([0, 1])
        # TensorFlow, because Keras leaves the algorithm to it, and what it chooses makes an epoch under XLA seven times
        # as long as Philox; whole numbers, because XLA makes other fractions of the same bits.
        return tf.random.stateless_uniform(shape, key, None, None, tf.uint32, alg="philox")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
