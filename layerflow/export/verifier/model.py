"""A model that is loaded, and asked in the two ways in which it can be served."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .graph import INIT, check_graph
from .images import Images
from .refusal import RefusedError, first_line, require
from .signature import Signature

#: Room for what float32 rounding does when other kernels multiply in another order (seen: 1e-6).
TOLERANCE = 1e-4
#: Room for it where both sides are of one call: two kernels of one graph may round a softmax differently. A threshold
#: may be 0.9999, so more would leave nothing to check.
AT_THRESHOLD = 1e-6
#: Largest batch that is tried; also the batch in which the test split is scored. Of large images it is fewer: those in
#: this many bytes, for a network's own arrays are a hundred times as large.
LARGE, LARGE_BYTES = 1000, 8 * 2**20


class Model:
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

    def check_answers(self, answers: dict[str, np.ndarray]) -> None:
        """What must hold for any answer."""
        probabilities, class_id = answers["probabilities"], answers["class_id"]
        require(bool(np.isfinite(probabilities).all()), "a probability is not a finite number")
        require(bool(np.abs(probabilities.sum(axis=-1) - 1).max() < TOLERANCE), "probabilities do not sum to 1")
        chosen = np.take_along_axis(probabilities, class_id.clip(0, probabilities.shape[1] - 1)[:, None], axis=-1)[:, 0]
        # Two classes may be as probable as each other in float32, and not have been as logits.
        most = bool((chosen >= probabilities.max(axis=-1) - TOLERANCE).all())
        require(most, "class_id is not the most probable class")
        if self.threshold is not None:
            self.check_accepted(probabilities.max(axis=-1), answers["accepted"])

    def check_accepted(self, confidence: np.ndarray, accepted: np.ndarray) -> None:
        """What is accepted must be what the contract's threshold says of the answer's own probabilities."""
        assert self.threshold is not None
        clear = np.abs(confidence.astype(np.float64) - self.threshold) > AT_THRESHOLD
        wanted = confidence >= np.float32(self.threshold)
        same = np.array_equal(accepted[clear], wanted[clear])
        require(same, f"accepted is not what its probabilities and the threshold {self.threshold} give")

    def answer_all(self, images: Images, chance: np.random.Generator) -> np.ndarray:
        """The answers to a whole split, in batches of random sizes, at random places, in a random order."""
        most, cuts = large(images), [0]
        while cuts[-1] < len(images):
            cuts.append(min(len(images), cuts[-1] + int(chance.integers(-(-most // 2), most, endpoint=True))))
        answers: np.ndarray | None = None
        for index in chance.permutation(len(cuts) - 1):
            rows = chance.permutation(np.arange(cuts[index], cuts[index + 1]))
            part = self.answer(images[rows], served=bool(chance.integers(2)))
            if answers is None:
                answers = np.empty((len(images), *part.shape[1:]), part.dtype)
            answers[rows] = part
        assert answers is not None
        return answers


def threshold_in(contract: dict[str, Any]) -> float | None:
    """The contract's threshold, a number; nothing where it has none."""
    threshold = contract.get("threshold")
    if threshold is None:
        return None
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    require(is_number and math.isfinite(threshold), f"the contract's threshold must be a number, received {threshold}")
    return float(threshold)


def large(images: np.ndarray | Images) -> int:
    return max(1, min(LARGE, LARGE_BYTES // images[:1].nbytes))
