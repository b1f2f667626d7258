"""Augmentation: Keras' own layers inside a step of training, with random numbers that follow from the step."""

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from layerflow.errors import ConfigError
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.fields import settings_in
from layerflow.training.keras_objects import call_keras, keras_class

#: Layers that mix images, and so their labels.
_MIXING = (keras.layers.MixUp, keras.layers.CutMix)


class Augmentation:
    """Layers that change the images of a step, one after the other.

    What they draw depends only on the seed, the step, the replica, and the layer's place in the list, so a checkpoint
    holds nothing of it. The result is rounded to whole numbers from 0 to 255, which a network gets in service too.

    Args:
        layers: Keras layers for images.
        image_shape: ``(height, width, channels)``.
        classes: Number of classes.
        seed: Decides, with the step, what is drawn.

    Call arguments:
        images: ``uint8`` of shape ``(batch, height, width, channels)``.
        labels: ``int32`` of shape ``(batch,)``.
        step: Number of the training's step.

    Returns:
        ``uint8`` images of the same shape, and their labels. Mixed labels are the share of each class in each image,
        ``float32`` of shape ``(batch, classes)``.

    Raises:
        ConfigError: If the layers can't take the images, or change their shape.
    """

    def __init__(self, layers: list[Any], image_shape: tuple[int, int, int], classes: int, seed: int) -> None:
        self._layers, self._classes, self._seed = layers, classes, seed
        self._draws = [_Draws(layer) for layer in layers]
        given = tf.TensorSpec((2, *image_shape), tf.uint8), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.int64)
        try:
            images, _ = tf.function(self.__call__).get_concrete_function(*given).structured_outputs
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ConfigError(
                f"augment.layers must take images of shape {image_shape}. Keras says: {reason}"
            ) from error
        if images.shape[1:] != image_shape:
            raise ConfigError(
                f"augment.layers must leave images of shape {image_shape}, those of the network. They leave "
                f"{tuple(images.shape[1:])}; let a Resizing layer come last."
            )

    def __call__(self, images: Any, labels: Any, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        key = _fold(_fold([self._seed, 0], step), replica)
        for number, (layer, draws) in enumerate(zip(self._layers, self._draws, strict=True)):
            draws.begin(_fold(key, number))
            if isinstance(layer, _MIXING):
                shares = tf.one_hot(labels, self._classes) if labels.dtype == tf.int32 else labels
                mixed = layer({"images": images, "labels": shares}, training=True)
                images, labels = mixed["images"], mixed["labels"]
            else:
                images = layer(images, training=True)
        return tf.saturate_cast(tf.round(images), tf.uint8), labels


def _fold(key: Any, number: Any) -> tf.Tensor:
    """A key for each ``number``, all different from each other and from those of other keys."""
    return tf.random.experimental.stateless_fold_in(tf.cast(key, tf.int64), tf.cast(number, tf.int64))


class _Draws(keras.random.SeedGenerator):
    """Gives the random functions of a layer one key after the other, all made from the key of the step.

    Keras' own counts in a variable, which replicas can't share, and which a checkpoint would have to hold.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(0)
        self._key: Any = np.zeros(2)
        self._count = 0
        for each in layer._flatten_layers():
            if hasattr(each, "generator"):
                each.generator = self

    def begin(self, key: tf.Tensor) -> None:
        """Start again, from the key of a step."""
        self._key, self._count = key, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """A key that was not given before in this step."""
        self._count += 1
        return _fold(self._key, self._count)


class DrawnAugMix(keras.layers.AugMix):
    """Keras' own, with operations that are drawn anew in each step.

    Keras draws them in Python, so a compiled function would repeat the first ones forever.

    References:
        Hendrycks et al., AugMix: a simple data processing method to improve robustness and uncertainty (2020).
    """

    def call(self, images: Any, training: bool = True) -> tf.Tensor:
        draws, random = self.generator, keras.random
        share = random.beta((), self.alpha, self.alpha, seed=draws)
        shares = random.gamma((self.num_chains,), self.alpha, seed=draws)
        shares /= tf.reduce_sum(shares)
        layers = [getattr(self, name) for name in self._augment_layers]
        # One more choice than there are layers: that of doing nothing.
        choices = random.randint((self.num_chains * self.chain_depth,), 0, len(layers) + 1, seed=draws)
        key = draws.next()

        def link(number: tf.Tensor, changed: tf.Tensor, mixed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            draws.begin(_fold(key, number))
            chain, place = number // self.chain_depth, number % self.chain_depth
            changed = tf.where(place == 0, images, changed)
            branches = [partial(_change, layer, changed, draws) for layer in layers]
            changed = tf.switch_case(choices[number], [*branches, lambda: tf.identity(changed)])
            return number + 1, changed, mixed + tf.where(place == self.chain_depth - 1, shares[chain], 0.0) * changed

        start = tf.constant(0), images, tf.zeros_like(images)
        _, _, mixed = tf.while_loop(lambda number, *_: number < choices.shape[0], link, start)
        return tf.clip_by_value(share * images + (1 - share) * mixed, *map(float, self.value_range))


def _change(layer: Any, images: tf.Tensor, draws: _Draws) -> tf.Tensor:
    layer.backend.set_backend("tensorflow")
    return layer.transform_images(images, layer.get_random_transformation(images, seed=draws))


def make_augmentation(
    config: AugmentConfig, image_shape: tuple[int, int, int], classes: int, seed: int
) -> Augmentation | None:
    """What ``augment.layers`` describes, if it names any layer.

    Raises:
        ConfigError: If Keras refuses a layer, or they can't be applied to such images.
    """
    if not config.layers:
        return None
    layers = []
    for form in config.layers:
        kind = keras_class(form, keras.layers)
        kind = DrawnAugMix if kind is keras.layers.AugMix else kind
        layers.append(call_keras("augment.layers", kind, settings_in(form)))
    return Augmentation(layers, image_shape, classes, seed)
