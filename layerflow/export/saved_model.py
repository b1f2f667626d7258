"""From a trained Keras model to a SavedModel that serves raw images, with what is needed to prove it."""

import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from layerflow import store
from layerflow.checksums import DIGESTS, EXTRA, write_digests
from layerflow.data.arrays import images_and_labels
from layerflow.models.networks import load_model
from layerflow.models.predict import make_predictor, softmax, uses_xla
from layerflow.records import DatasetRef, ExportRef, TrainedRef
from layerflow.serving import Serving

log = logging.getLogger(__name__)

#: Test images that ship with the model: enough to see a wrong weight, few enough to weigh nothing.
_GOLDEN = 32


def export(
    trained: TrainedRef,
    data: DatasetRef,
    folder: Path,
    serving: Serving = Serving(),  # noqa: B008  (frozen)
) -> ExportRef:
    """Write ``saved_model/``, whose signature ``serving_default`` takes and gives

    * ``images``: ``uint8`` of shape ``(batch, height, width, channels)``, any batch size, values 0 to 255;
    * ``probabilities``: ``float32`` of shape ``(batch, classes)``;
    * ``class_id``: ``int64`` of shape ``(batch,)``;
    * ``accepted``: ``bool`` of shape ``(batch,)``, where ``serving`` has a threshold.

    Scaling, temperature and threshold are in the graph. Beside it, in ``assets.extra/``: golden examples with the
    answers that the trained Keras model gave them, the contract (signature, classes; temperature and threshold where
    they are not the defaults), requests by which TensorFlow Serving warms up before it answers anybody, and the SHA-256
    of every file.
    """
    network = load_model(trained.model, store.path(trained.keras))
    target = folder / "saved_model"
    _write_saved_model(network, data, serving, target)
    extra = target / EXTRA
    extra.mkdir()
    images = np.array(images_and_labels(data, "test")[0][:_GOLDEN])
    logits = make_predictor(network, uses_xla(network, data.image_shape, "auto"))(images)
    _write_golden(images, softmax(logits, serving.temperature), serving, extra / "golden.npz")
    contract = {
        "image_shape": data.image_shape,
        "classes": data.classes,
        "dataset": data.name,
        "model": trained.model,
        **serving.model_dump(exclude_defaults=True),
    }
    (extra / "contract.json").write_text(json.dumps(contract, indent=2))
    _write_warmup(images, extra / "tf_serving_warmup_requests")
    files = write_digests(target)
    log.info(
        "SavedModel of %d files and %d bytes",
        len(files),
        sum((target / name).stat().st_size for name in files),
    )
    return ExportRef(digest=files[DIGESTS], files=files)


def _write_saved_model(network: keras.Model, data: DatasetRef, serving: Serving, target: Path) -> None:
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
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

    archive = keras.export.ExportArchive()
    archive.track(network)
    images = tf.TensorSpec((None, *data.image_shape), tf.uint8, name="images")
    archive.add_endpoint("serving_default", serve, input_signature=[images])
    archive.write_out(str(target), verbose=False)


def _write_golden(images: np.ndarray, probabilities: np.ndarray, serving: Serving, file: Path) -> None:
    golden: dict[str, Any] = {"images": images, "probabilities": probabilities}
    if serving.threshold is not None:
        golden["accepted"] = probabilities.max(axis=-1) >= np.float32(serving.threshold)
    np.savez(file, **golden)


def _write_warmup(images: np.ndarray, file: Path) -> None:
    """Recorded requests, of one image and of several, in the place and form where TensorFlow Serving looks for them."""
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in (images[:1], images):
            recorded = PredictionLog()
            asked = recorded.predict_log.request
            asked.model_spec.signature_name = "serving_default"
            asked.inputs["images"].CopyFrom(tf.make_tensor_proto(batch))
            writer.write(recorded.SerializeToString(deterministic=True))
