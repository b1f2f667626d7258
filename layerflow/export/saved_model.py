"""From a trained Keras model to a SavedModel that serves raw images, with what is needed to prove it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from layerflow import store
from layerflow.checksums import DIGESTS, EXTRA, write_digests
from layerflow.data.arrays import images_and_labels
from layerflow.export.file_kinds import DECODED, PILLOW_ONLY
from layerflow.export.signatures import write_saved_model
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

    ``image_bytes`` takes encoded images, strings of shape ``(batch,)``, and also gives ``label``, the names of the
    classes. Where ``data`` are of files, ``pixels`` gives what it makes of them, ``images``. ``embedding`` takes
    ``images`` and gives the features that the head takes, ``float32`` of shape ``(batch, features)``; it is left out
    where the head isn't known.

    Decoding, scaling, temperature and threshold are in the graph. Beside it, in ``assets.extra/``: golden examples with
    the answers that the trained Keras model gave them, the contract (signatures, classes; temperature and threshold
    where they are not the defaults), ``labels.txt``, requests by which TensorFlow Serving warms up before it answers
    anybody, and the SHA-256 of every file.
    """
    network = load_model(trained.model, store.path(trained.keras))
    target = folder / "saved_model"
    # Only files can be compared with the pixels of training; to load and verify it takes half a second.
    with_pixels = (store.path(data.folder) / "test_sources.npy").exists()
    width = write_saved_model(network, data, serving, target, with_pixels)
    if width is None:
        log.info("%s has no signature `embedding`: its last layer isn't known to be the head", trained.model)
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
        "image_bytes": {"decoded": DECODED, "refused": PILLOW_ONLY},
        **({"pixels": True} if with_pixels else {}),
        **({} if width is None else {"embedding": width}),
        **serving.model_dump(exclude_defaults=True),
    }
    (extra / "contract.json").write_text(json.dumps(contract, indent=2))
    (extra / "labels.txt").write_text("".join(f"{name}\n" for name in data.classes))
    _write_warmup(images, extra / "tf_serving_warmup_requests")
    files = write_digests(target)
    log.info(
        "SavedModel of %d files and %d bytes",
        len(files),
        sum((target / name).stat().st_size for name in files),
    )
    signatures = ("image_bytes", *(name for name in ("pixels", "embedding") if name in contract))
    return ExportRef(digest=files[DIGESTS], files=files, signatures=signatures, refused_files=PILLOW_ONLY)


def _write_golden(images: np.ndarray, probabilities: np.ndarray, serving: Serving, file: Path) -> None:
    golden: dict[str, Any] = {"images": images, "probabilities": probabilities}
    if serving.threshold is not None:
        golden["accepted"] = probabilities.max(axis=-1) >= np.float32(serving.threshold)
    np.savez(file, **golden)


def _write_warmup(images: np.ndarray, file: Path) -> None:
    """Recorded requests, of one image and of several, in the place and form where TensorFlow Serving looks for them."""
    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    asked_in = {"serving_default": ("images", images), "image_bytes": ("image_bytes", encoded)}
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, (name, inputs) in asked_in.items():
            for batch in (inputs[:1], inputs):
                recorded = PredictionLog()
                asked = recorded.predict_log.request
                asked.model_spec.signature_name = signature
                asked.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
                writer.write(recorded.SerializeToString(deterministic=True))
