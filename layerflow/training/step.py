"""One step of training: the gradients of a batch, on one device or shared by several replicas."""

import math
import threading
from collections import UserList
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from layerflow.errors import ConfigError


def added_loss(network: Any) -> tf.Tensor | None:
    """What the last call of ``network`` adds to the loss of its batch, by regularizers and ``add_loss``, if anything.

    ``float32``, and as large as Keras' ``fit`` has it.
    """
    losses = [tf.reduce_sum(tf.cast(each, tf.float32)) for each in network.losses]
    return tf.add_n(losses) if losses else None


def with_added_loss(network: Any) -> Callable[..., tf.Tensor]:
    """A network that answers like ``network`` with one more column: what is added to the loss of an image's batch."""

    def answer(images: tf.Tensor, training: bool) -> tf.Tensor:
        logits = tf.cast(network(images, training=training), tf.float32)
        added = added_loss(network)
        column = tf.zeros_like(logits[:, :1]) + (0.0 if added is None else added)
        return tf.concat([logits, column], axis=-1)

    return answer


#: How the names of weights begin that follow what a layer has seen, in Keras' layers as in ours.
_MOVING = "moving_"


def make_step(
    network: Any,
    optimizer: Any,
    strategy: tf.distribute.Strategy,
    objective: Callable[..., tf.Tensor] = tf.nn.sparse_softmax_cross_entropy_with_logits,
    augment: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
) -> Callable[..., Any]:
    """One step over a whole batch, which gives the sum of its losses and the number of its right answers.

    Args:
        objective: From labels or shares of classes, and logits, to the loss of each image; see ``Objective``.
        augment: From images, labels and the number of the step to other images and labels; see ``Augmentation``.
    """
    weights = network.trainable_variables

    def differentiate(
        images: tf.Tensor, expected: tf.Tensor, batch: tf.Tensor, weight: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        if augment is not None:
            images, expected = augment(images, expected, optimizer.iterations)
        with tf.GradientTape() as tape:
            logits = tf.cast(network(images, training=True), tf.float32)
            losses = objective(expected, logits)
            if weight is not None:
                losses *= weight
            total, added = tf.reduce_sum(losses), added_loss(network)
            if added is not None:
                # It counts for each image of this share, so that over all shares a regularizer counts once, and a mean
                # over a batch is that of the whole one.
                total += added * tf.cast(tf.size(losses), tf.float32) * (1.0 if weight is None else weight)
            loss = optimizer.scale_loss(total / batch)
        if expected.dtype != tf.int32:  # mixed: the class with the largest share is the right one, as in Keras
            expected = tf.argmax(expected, axis=-1, output_type=tf.int32)
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
