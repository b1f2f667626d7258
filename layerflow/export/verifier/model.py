"""A model that is loaded, and asked in the two ways in which it can be served."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .answering import Answering, threshold_in
from .graph import INIT, check_graph
from .refusal import RefusedError, first_line, require
from .signature import Signature


class Model(Answering):
    """A loaded model, of which TensorFlow knows two ways to answer, from different parts of its file.

    Python programs call the function among its objects; TensorFlow Serving runs the nodes that the signature names,
    with variables that the graph itself restored. What ships must answer the same in both ways, or it would be verified
    in one and served in the other: every batch goes the way that chance decides.
    """

    def __init__(self, folder: Path) -> None:
        self.graph = check_graph(folder)
        began = time.perf_counter()
        try:
            self.loaded = tf.saved_model.load(str(folder))
            self.load_seconds = time.perf_counter() - began
            session = tf.compat.v1.Session(graph=tf.Graph())
            described = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        except Exception as error:
            raise RefusedError(f"tf.saved_model.load fails: {first_line(error)}") from error
        for names in (self.loaded.signatures, described):
            require("serving_default" in names, f"signature serving_default is missing: {list(names)}")
        self.described, self.session = described, session

    def check_contract(self, contract: dict[str, Any]) -> str:
        """Both descriptions of each signature must be the contract's, and no other signature may be there."""
        shape, classes = (None, *contract["image_shape"]), len(contract["classes"])
        self.threshold = threshold_in(contract)
        images, files = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((None,), tf.string)
        given = {
            "probabilities": tf.TensorSpec((None, classes), tf.float32),
            "class_id": tf.TensorSpec((None,), tf.int64),
        }
        if self.threshold is not None:
            given["accepted"] = tf.TensorSpec((None,), tf.bool)
        wanted = {"serving_default": ({"images": images}, given)}
        if "image_bytes" in contract:
            wanted["image_bytes"] = ({"image_bytes": files}, {**given, "label": files})
        if "pixels" in contract:
            wanted["pixels"] = ({"image_bytes": files}, {"images": images})
        if "embedding" in contract:
            features = tf.TensorSpec((None, contract["embedding"]), tf.float32)
            wanted["embedding"] = ({"images": images}, {"embedding": features})
        for names in (self.loaded.signatures.keys(), self.described.keys() - {INIT}):
            require(set(names) == wanted.keys(), f"its signatures must be {sorted(wanted)}, received {sorted(names)}")
        self.signatures = {
            name: Signature(self.loaded.signatures[name], self.described[name], self.session, *specs)
            for name, specs in wanted.items()
        }
        self.signature = self.loaded.signatures["serving_default"]
        accepted = "" if self.threshold is None else f", and to accepted bool from a probability of {self.threshold} on"
        more = f"; also {', '.join(sorted(wanted.keys() - {'serving_default'}))}" if len(wanted) > 1 else ""
        return f"images uint8 {shape} to probabilities float32 and class_id int64 of {classes} classes{accepted}{more}"

    def answer(self, images: np.ndarray, served: bool) -> np.ndarray:
        """Probabilities ``(images, classes)``, with what must hold for any answer; ``served``: as Serving would."""
        answers = self.signatures["serving_default"](images, served)
        self.check_answers(answers)
        return np.asarray(answers["probabilities"])

    def asking(self, image: np.ndarray) -> Callable[[], object]:
        """A function that asks for the answer to one image, as the latency is measured."""
        tensor = tf.constant(image)
        return lambda: self.signature(images=tensor)["probabilities"].numpy()
