"""What a SavedModel can be asked: raw images, image files, and features."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from layerflow.export.image_bytes import pixels_of
from layerflow.models.embedding import embedding_of
from layerflow.records import DatasetRef
from layerflow.serving import Serving

Answers = dict[str, tf.Tensor]


def write_saved_model(
    network: keras.Model, data: DatasetRef, serving: Serving, target: Path, with_pixels: bool
) -> int | None:
    """Write a SavedModel with the signatures that ``export`` names.

    Returns:
        How many features ``embedding`` gives, or nothing where there is no such signature.
    """
    archive = keras.export.ExportArchive()
    archive.track(network)
    images = tf.TensorSpec((None, *data.image_shape), tf.uint8, name="images")
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")
    answer = archive.add_endpoint("serving_default", _answering(network, serving), input_signature=[images])
    # Traced once: Keras and TensorFlow trace each signature several times.
    decode = tf.function(functools.partial(pixels_of, shape=data.image_shape), [files], autograph=False)
    decode = decode.get_concrete_function()
    if with_pixels:
        archive.add_endpoint("pixels", lambda image_bytes: {"images": decode(image_bytes)}, [files])
    archive.add_endpoint("image_bytes", functools.partial(_answer_files, answer, decode, data.classes), [files])
    features, width = embedding_of(network) or (None, None)
    if features:
        archive.add_endpoint("embedding", lambda images: {"embedding": tf.cast(features(images), tf.float32)}, [images])
    archive.write_out(str(target), verbose=False)
    return width


def _answering(network: keras.Model, serving: Serving) -> Callable[[tf.Tensor], Answers]:
    def serve(images: tf.Tensor) -> Answers:
        logits = network(images, training=False)
        divided = logits if serving.temperature == 1 else logits / serving.temperature
        probabilities = ops.softmax(divided, axis=-1)
        answers = {
            "probabilities": probabilities,
            "class_id": tf.argmax(logits, axis=-1, output_type=tf.int64),  # no temperature can change it
        }
        if serving.threshold is not None:
            answers["accepted"] = tf.reduce_max(probabilities, axis=-1) >= serving.threshold
        return answers

    return serve


def _answer_files(answer: Any, decode: Any, classes: tuple[str, ...], image_bytes: tf.Tensor) -> Answers:
    answers = answer(decode(image_bytes))
    return {**answers, "label": tf.gather(tf.constant(classes), answers["class_id"])}
