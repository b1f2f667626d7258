"""The training loop itself: steps of an epoch in one compiled function, over images that lie on the device."""

import math
import threading
import time
from collections import UserList
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from layerflow.errors import ConfigError
from layerflow.models.predict import XLA_ERRORS, added_loss, say_graph
from layerflow.training.epoch_windows import Windows
from layerflow.training.workers import Workers

#: Seconds that one call of the compiled function should take: how soon progress shows and a cancellation is obeyed.
CHUNK_SECONDS = 1.0
#: Steps of the very first call, before anything is known of their speed.
_FIRST_CHUNK = 32
#: How the names of weights begin that follow what a layer has seen, in Keras' layers as in ours.
_MOVING = "moving_"


def uses_xla(network: Any, image_shape: tuple[int, ...], choice: str) -> bool:
    """Whether the network's functions are compiled by XLA: as ``choice`` says, or by this rule for ``auto``.

    On a GPU, always. On a CPU, unless the network has convolutions: inside a compiled loop XLA runs them about
    fifteen times slower there than TensorFlow's own kernels, while it makes small matrix products several times faster.
    """
    if choice != "auto":
        return choice == "xla"
    if tf.config.list_logical_devices("GPU"):
        return True
    images = tf.TensorSpec((1, *image_shape), tf.uint8)
    graph = tf.function(lambda x: network(x, training=False)).get_concrete_function(images).graph
    return not any("Conv" in operation.type for operation in graph.get_operations())


class Engine:
    """Trains a network; every image counts once an epoch, whatever the batch size.

    An epoch runs over a copy of the images in its order, a permutation decided by ``(seed, epoch)`` alone: its steps
    then read memory in one direction, which a compiled loop does twice as fast as it gathers single images. The copy is
    made before, by another thread: of the whole epoch, so that the images are held three times, or, streamed, of a
    window of it at a time, with the same bits. Where an epoch stands, and the sums of its loss and its correct answers,
    are variables that change with the weights, inside the compiled function: between two calls, everything that a
    checkpoint needs fits together.

    Args:
        network: Takes ``uint8`` images, gives logits ``(batch, classes)``. Under a strategy, made in its scope.
        optimizer: A built Keras optimizer.
        images: ``uint8`` of shape ``(examples, height, width, channels)``; a memory-mapped array where streamed.
        labels: ``int32`` of shape ``(examples,)``.
        batch_size: Images of one step, over all replicas.
        seed: Decides the order.
        xla: Whether XLA compiles the function, if it can; it can't with several replicas.
        strategy: Where the steps run; TensorFlow's default is the one device there is.
        streamed: Whether the images are read from the disk, window by window.
    """

    def __init__(
        self,
        network: Any,
        optimizer: Any,
        images: np.ndarray | tf.Tensor,
        labels: np.ndarray | tf.Tensor,
        batch_size: int,
        seed: int,
        xla: bool = True,
        strategy: tf.distribute.Strategy | None = None,
        streamed: bool = False,
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
        step = _make_step(network, optimizer, strategy)
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
                return tf.slice(images, [start, 0, 0, 0], [size, *images.shape[1:]]), tf.slice(labels, [start], [size])

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


def _make_step(network: Any, optimizer: Any, strategy: tf.distribute.Strategy) -> Callable[..., Any]:
    """One step over a whole batch, which gives the sum of its losses and the number of its right answers."""
    weights = network.trainable_variables

    def differentiate(
        images: tf.Tensor, expected: tf.Tensor, batch: tf.Tensor, weight: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = tf.cast(network(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(expected, logits)
            if weight is not None:
                losses *= weight
            total, added = tf.reduce_sum(losses), added_loss(network)
            if added is not None:
                # It counts for each image of this share, so that over all shares a regularizer counts once, and a mean
                # over a batch is that of the whole one.
                total += added * tf.cast(tf.size(losses), tf.float32) * (1.0 if weight is None else weight)
            loss = optimizer.scale_loss(total / batch)
        right = tf.argmax(logits, axis=-1, output_type=tf.int32) == expected
        return tape.gradient(loss, weights), total, tf.reduce_sum(tf.cast(right, tf.float32))

    if strategy.num_replicas_in_sync > 1:
        return _make_shared_step(network, optimizer, strategy, differentiate)

    # XLA makes one pass over each weight of what are six for Adam otherwise, also where it compiles nothing else.
    @tf.function(jit_compile=True)
    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, weights)

    def step(images: tf.Tensor, expected: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gradients, loss, right = differentiate(images, expected, tf.cast(tf.shape(images)[0], tf.float32))
        apply(gradients)
        return loss, right

    return step


def _make_shared_step(
    network: Any, optimizer: Any, strategy: tf.distribute.Strategy, differentiate: Callable[..., Any]
) -> Callable[..., Any]:
    """The step where several replicas share a batch: each takes every n-th image, and the gradients are summed.

    So are the figures, and what moving averages have moved by: each replica moves them by what it saw itself, and all
    go on with the mean. Where a last batch has fewer images than there are replicas, those without one take its last
    image with weight zero: statistics over no image would be no numbers.
    """
    replicas, weights = strategy.num_replicas_in_sync, network.trainable_variables
    moving = [weight for weight in network.non_trainable_variables if weight.name.startswith(_MOVING)]
    _let_sum_be(optimizer)
    for layer in network._flatten_layers():
        layer._losses = _OfEachThread()

    def on_replica(images: tf.Tensor, expected: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        number, size = tf.distribute.get_replica_context().replica_id_in_sync_group, images.shape[0]
        share, counts = slice(tf.minimum(number, size - 1), None, replicas), tf.cast(number < size, tf.float32)
        before = [tf.identity(each.value) for each in moving]
        gradients, loss, right = differentiate(images[share], expected[share], batch, counts)
        moves = [each.value - old for each, old in zip(moving, before, strict=True)]
        loss, right, *sums = _sum_over_replicas([loss, right * counts, *gradients, *moves])
        optimizer.apply(sums[: len(weights)], weights)
        for each, old, moved in zip(moving, before, sums[len(weights) :], strict=True):
            each.assign(old + moved / replicas)
        return tf.stack([loss, right])

    def step(images: tf.Tensor, expected: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        answers = strategy.run(on_replica, args=(images, expected, tf.cast(tf.shape(images)[0], tf.float32)))
        loss, right = tf.unstack(strategy.experimental_local_results(answers)[0])
        return loss, right

    return step


class _OfEachThread(threading.local, UserList[Any]):
    """A list that is another one in each thread.

    The replicas of one process are traced by threads that take turns, in mid-call where a layer changes a variable.
    Keras keeps what ``add_loss`` is given in a list of the layer, where one replica would clear that of another.
    """


def _sum_over_replicas(values: list[Any]) -> list[Any]:
    """The sum of each tensor over the replicas, where it is one; float32.

    Of all in one piece: over a network, many small sums take many times as long as one.
    """
    there = [tf.convert_to_tensor(value) for value in values if value is not None]
    whole = tf.concat([tf.reshape(tf.cast(value, tf.float32), [-1]) for value in there], 0)
    whole = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, whole)
    parts = tf.split(whole, [math.prod(value.shape) for value in there])
    sums = iter([tf.reshape(part, value.shape) for part, value in zip(parts, there, strict=True)])
    return [None if value is None else next(sums) for value in values]


def _let_sum_be(optimizer: Any) -> None:
    """Keep a Keras optimizer from summing gradients over the replicas: it gets sums.

    By itself it would clip each replica's gradients, and look for overflows in them, before it sums them, so that two
    replicas would learn something else than one, or one of them wait for ever for one that leaves out the step.

    Raises:
        ConfigError: If it accumulates gradients, which Keras can't do on several replicas.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner.gradient_accumulation_steps:
        raise ConfigError(
            "training.optimizer must not accumulate gradients where several workers or GPUs share a batch. Received: "
            f"gradient_accumulation_steps={inner.gradient_accumulation_steps}; take a larger training.batch_size."
        )
    inner._all_reduce_sum_gradients = lambda gradients_and_weights: gradients_and_weights
