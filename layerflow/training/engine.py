"""The training loop itself: steps of an epoch in one compiled function, over images on the device."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from layerflow.models.predict import XLA_ERRORS, say_graph
from layerflow.packed import Images
from layerflow.training.epoch_windows import Windows
from layerflow.training.step import make_step
from layerflow.training.workers import Workers

#: Seconds that one call of the compiled function should take: how soon progress shows and a cancellation is obeyed.
CHUNK_SECONDS = 1.0
#: Steps of the very first call, before anything is known of their speed.
_FIRST_CHUNK = 32


class Engine:
    """Trains a network; every image counts once an epoch, whatever the batch size.

    An epoch runs over a copy of the images in its order, a permutation decided by ``(seed, epoch)`` alone: its steps
    then read memory in one direction, which a compiled loop does twice as fast as it gathers single images. The copy is
    made before, by another thread: of the whole epoch, so that the images are held three times, or, streamed, of a
    window of it at a time, with the same bits. Where an epoch stands, and the sums of its loss and its correct answers,
    are variables that change with the weights, inside the compiled function: between two calls, everything that a
    checkpoint needs fits together.

    Args:
        network: Takes ``images``, gives logits ``(batch, classes)``. Under a strategy, made in its scope.
        optimizer: A built Keras optimizer.
        images: ``(examples, …)``, ``uint8`` images or ``float32`` features; memory-mapped where streamed.
        labels: ``int32`` of shape ``(examples,)``.
        batch_size: Images of one step, over all replicas.
        seed: Decides the order.
        xla: Whether XLA compiles the function, if it can; it can't with several replicas.
        strategy: Where the steps run; TensorFlow's default is the one device there is.
        streamed: Whether the images are read from the disk, window by window.
        objective: The loss of each image; by default the cross-entropy.
        augment: Changes the images of each step, if anything does.
    """

    def __init__(
        self,
        network: Any,
        optimizer: Any,
        images: Images | tf.Tensor,
        labels: np.ndarray | tf.Tensor,
        batch_size: int,
        seed: int,
        xla: bool = True,
        strategy: tf.distribute.Strategy | None = None,
        streamed: bool = False,
        objective: Callable[..., tf.Tensor] = tf.nn.sparse_softmax_cross_entropy_with_logits,
        augment: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
    ) -> None:
        self.windows = Windows(images, labels, batch_size, seed, streamed)
        self.examples, self.steps = self.windows.examples, self.windows.steps
        self.position = tf.Variable(0, dtype=tf.int32)
        self._losses = tf.Variable(0.0, dtype=tf.float64)
        self._correct = tf.Variable(0, dtype=tf.int64)
        self._finite = tf.Variable(0, dtype=tf.int32)
        self._chunk = min(_FIRST_CHUNK, self.steps)
        strategy = strategy or tf.distribute.get_strategy()
        self._workers = Workers(strategy)
        step = make_step(network, optimizer, strategy, objective, augment)
        self.xla = xla and strategy.num_replicas_in_sync == 1
        self._compiled = lambda xla: self._compile(step, batch_size, xla)
        self._run = self._compiled(self.xla)

    @property
    def variables(self) -> list[tf.Variable]:
        """Where the epoch stands; part of a checkpoint."""
        return [self.position, self._losses, self._correct, self._finite]

    @property
    def loss(self) -> float:
        """Mean loss of a finished epoch's images, in nats, with what the network adds to it; that of Keras' ``fit``.

        As soon as one step's is not finite, this is not.
        """
        return float(self._losses) / self.examples

    @property
    def accuracy(self) -> float:
        """Share of a finished epoch's images that were classified rightly, each before its step."""
        return int(self._correct) / self.examples

    @property
    def first_bad_step(self) -> int:
        """The first step of the epoch whose loss was not finite, counted from 1."""
        return int(self._finite) + 1

    def warm_up(self) -> None:
        """Compile now, running no step, so that the seconds of the first epoch are those of an epoch.

        Where XLA can't compile the network, ``xla`` is false from then on.
        """
        window = self.windows.blank()
        nothing = window.images, window.labels, tf.constant(window.start), tf.constant(window.stop)
        try:
            self._run(*nothing)
        except XLA_ERRORS as error:
            if not self.xla:
                raise
            say_graph(error)
            self.xla, self._run = False, self._compiled(False)
            self._run(*nothing)

    def start_epoch(self) -> None:
        """Go back to the first step and forget the sums."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def run_chunk(self, epoch: int) -> bool:
        """Run about a second's worth of the epoch's steps, or those left in the window.

        Returns whether the epoch is over or its loss not finite.
        """
        began, first = time.perf_counter(), int(self.position)
        if first == self.steps:  # interrupted after the last step: no window begins there
            return True
        window = self.windows.at(epoch, first)
        last = min(first + self._chunk, window.stop)
        self._run(window.images, window.labels, tf.constant(window.start), tf.constant(last))
        done = int(self.position) - first
        # Not this worker's seconds but those of all of them: each must choose the same number of steps.
        seconds = self._workers.total([time.perf_counter() - began])[0] / self._workers.count
        self._chunk = max(1, min(self.steps, int(done * CHUNK_SECONDS / max(seconds, 1e-6))))
        return int(self.position) == self.steps or int(self._finite) < int(self.position)

    def _compile(self, step: Callable[..., Any], batch_size: int, xla: bool) -> Callable[..., None]:
        full, rest = divmod(self.examples, batch_size)

        def body(images: tf.Tensor, labels: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index, losses, correct, finite = state
            loss, right = step(images, labels)
            losses += tf.cast(loss, tf.float64)
            finite += tf.cast(tf.math.is_finite(losses), tf.int32)
            return index + 1, losses, correct + tf.cast(right, tf.int64), finite

        @tf.function(jit_compile=xla)
        def run(images: tf.Tensor, labels: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> None:
            def batch(index: tf.Tensor | int, size: int) -> tuple[tf.Tensor, tf.Tensor]:
                start = index * batch_size
                first = [start, *[0] * (len(images.shape) - 1)]
                return tf.slice(images, first, [size, *images.shape[1:]]), tf.slice(labels, [start], [size])

            # Steps are counted from the window's first: XLA would compile anew for each other number that a slice's
            # start depends on, unless it is a loop's own counter or known here, as the place of the last batch is.
            state = tuple(variable.read_value() for variable in self.variables)
            state = (state[0] - first, *state[1:])
            if full:
                state = tf.while_loop(
                    lambda index, *_: index < tf.minimum(last, full) - first,
                    lambda index, *sums: body(*batch(index, batch_size), index, *sums),
                    state,
                )
            if rest:  # a batch of its own size: padding it would let images that are not there into the statistics
                state = tf.cond(
                    (state[0] + first == full) & (last > full),
                    lambda: body(*batch(full % self.windows.window_steps, rest), *state),
                    lambda: state,
                )
            for variable, value in zip(self.variables, (state[0] + first, *state[1:]), strict=True):
                variable.assign(value)

        return run
