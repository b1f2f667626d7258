"""A user's network with an operation that XLA can't compile: it averages areas of the image."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tests")
class Area(keras.layers.Layer):
    """Images at half their height and width, as float32 between 0 and 1."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        size = (images.shape[1] // 2, images.shape[2] // 2)
        return tf.image.resize(tf.cast(images, tf.float32) / 255.0, size, method="area")


def make(classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    layers = [keras.Input(image_shape, dtype="uint8"), Area(), keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential(layers)
