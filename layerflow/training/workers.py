"""The processes that train one network together, and what they must agree on."""

from collections.abc import Sequence

import tensorflow as tf


class Workers:
    """The workers of a strategy: those that ``training.workers`` asks for, or this process alone.

    A step needs all of them, and waits for those that are missing. So whatever decides how many steps are run must be
    the same everywhere to the last bit, above all what is read from a clock: ``total`` makes it so.

    Args:
        strategy: Of TensorFlow. One replica a worker, where it has several.

    Attributes:
        count: How many there are.
        rank: Which one this is, from 0. The first is the chief: it alone writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.count = strategy.num_replicas_in_sync if several else 1
        self.rank = strategy.cluster_resolver.task_id if several else 0
        self._strategy = strategy
        self._sum = tf.function(self._reduce)

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the checkpoints and the model."""
        return self.rank == 0

    def total(self, figures: Sequence[float]) -> list[float]:
        """The sums of ``figures`` over all workers, each of which must call this; the same bits on all of them."""
        if self.count == 1:
            return list(figures)
        return self._sum(tf.constant(figures, tf.float64)).numpy().tolist()

    def _reduce(self, figures: tf.Tensor) -> tf.Tensor:
        each = self._strategy.run(lambda mine: mine, (figures,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)
