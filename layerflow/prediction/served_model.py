"""A published version that is loaded, warmed up, and asked by its signatures."""

import contextlib
import functools
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from layerflow.checksums import EXTRA
from layerflow.data.decode import MAX_PIXELS, BrokenImageError, look
from layerflow.errors import UserError
from layerflow.export.image_bytes import pixels_of
from layerflow.prediction.answers import contract_of, reason_of
from layerflow.prediction.attention import Attention
from layerflow.prediction.json_tensors import Input

#: Requests with more pixels are decoded one at a time: 100 million need 1.6 GB.
_MANY_PIXELS = 10_000_000
_one_at_a_time = threading.Lock()
#: Where the graph says which file of a batch it refuses.
_PLACE = re.compile(r"\[image_bytes\] \[(\d+)\]")


class ServedModel:
    """A version of a model, ready to answer.

    Args:
        name: The model's.
        version: The version's number.
        folder: The SavedModel, whose bytes were checked.

    Raises:
        UserError: If it has no signature ``image_bytes``.
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        self.name, self.version = name, version
        contract = contract_of(folder)
        self.classes: list[str] = contract["classes"]
        self.shape: tuple[int, int, int] = tuple(contract["image_shape"])
        self._loaded = tf.saved_model.load(str(folder))
        self.inputs = {name: _input_of(each) for name, each in self._loaded.signatures.items()}
        described = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
        self.signature_def = {
            name: MessageToDict(each, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, each in described.items()
        }
        self._warm_up(folder)

    def ask(self, signature: str, images: np.ndarray | list[bytes]) -> dict[str, np.ndarray]:
        """The outputs of a signature by name, each with one row per image; strings are ``object`` arrays of bytes.

        Args:
            images: What ``inputs`` says of the signature: a ``uint8`` array, or files.

        Raises:
            UserError: If a file is refused, or all of them together are too large.
        """
        pixels = _claimed_pixels(images) if isinstance(images, list) else 0
        try:
            with _one_at_a_time if pixels > _MANY_PIXELS else contextlib.nullcontext():
                found = self._loaded.signatures[signature](**{self.inputs[signature].name: tf.constant(images)})
        except tf.errors.InvalidArgumentError as error:
            if not isinstance(images, list):
                raise
            place = _PLACE.search(error.message)
            raise _undecoded(int(place[1]) if place else None, images, reason_of(error)) from None
        return {name: value.numpy() for name, value in found.items()}

    def pixels(self, content: bytes) -> np.ndarray:
        """The pixels that the model makes of a file, by the rule that is in its graph: ``uint8`` of ``shape``."""
        if "pixels" in self.inputs:
            return np.asarray(self.ask("pixels", [content])["images"][0])
        return np.asarray(self._decode(tf.constant([content]))[0])

    @functools.cached_property
    def _decode(self) -> Any:
        """What the graph does to files, where no signature gives it: traced when it is first asked for."""
        decode = functools.partial(pixels_of, shape=self.shape)
        return tf.function(decode, [tf.TensorSpec((None,), tf.string)], autograph=False)

    @functools.cached_property
    def attention(self) -> Attention | str:
        """Where this version looks, or why that can't be said; made when it is first asked for."""
        try:
            return Attention(self._loaded.signatures["serving_default"])
        except ValueError as error:
            return str(error)

    def _warm_up(self, folder: Path) -> None:
        """Ask what the export has recorded, as TensorFlow Serving does before it answers anybody."""
        for record in tf.data.TFRecordDataset(str(folder / EXTRA / "tf_serving_warmup_requests")).as_numpy_iterator():
            asked = PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in asked.inputs.items()}
            self._loaded.signatures[asked.model_spec.signature_name](**inputs)


def _input_of(signature: Any) -> Input:
    ((name, spec),) = signature.structured_input_signature[1].items()
    return Input(name, None if spec.dtype == tf.string else tuple(spec.shape[1:]))


def _claimed_pixels(files: list[bytes]) -> int:
    """How many pixels the images claim to have together: a small file can claim any number.

    Raises:
        UserError: If they are too many to decode together, or a file is no image.
    """
    pixels = 0
    for row, content in enumerate(files):
        try:
            height, width, _ = look(content)
        except BrokenImageError as error:
            raise _undecoded(row, files, str(error)) from None
        pixels += height * width
    if pixels > MAX_PIXELS:
        raise UserError(
            f"The images of a request must have at most {MAX_PIXELS:,} pixels together. Received: {pixels:,}; send "
            "fewer at a time."
        )
    return pixels


def _undecoded(row: int | None, files: list[bytes], reason: str) -> UserError:
    which = "the image" if len(files) == 1 else "one of the images" if row is None else f"image {row}"
    return UserError(f"The model can't decode {which}: {reason}. Send a JPEG or a PNG file.")
