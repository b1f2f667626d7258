"""Reload verification, run as a script in a process of its own that has only TensorFlow and NumPy.

Usage: ``python -I -S verifier.py FOLDER...``, with the folders of the libraries as the only places to import from. Then
it waits for requests, one JSON object a line on stdin, so that it can be started before there is something to verify,
and prints one JSON object a line: either ``{"refused": reason}`` or the figures. Imports nothing of this project, and
proves that it could not: a model that needs its training code to be loaded is no model to serve.

A request verifies ``saved_model``; or, where it names a ``champion``, it scores both on the same test examples.
"""

import hashlib
import importlib.util
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path += sys.argv[1:]

import numpy as np
import tensorflow as tf

#: Room for what float32 rounding does when other kernels multiply in another order (seen: 1e-6).
TOLERANCE = 1e-4
#: Largest batch that is tried; also the batch in which the test split is scored. Of large images it is fewer: those in
#: this many bytes, for a network's own arrays are a hundred times as large.
LARGE, LARGE_BYTES = 1000, 8 * 2**20
#: Calls of one image each for the latency: the 99th percentile then has two beyond it.
CALLS = 200


request: dict[str, Any] = {}


class RefusedError(Exception):
    """The model must not be served, and why."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise RefusedError(reason)


def check_isolation() -> str:
    found = [name for name in request["must_not_import"] if importlib.util.find_spec(name)]
    require(
        not found,
        f"this process could import {', '.join(found)}, so it proves nothing about a server that can't",
    )
    return "no code of the project can be imported"


def check_digests(folder: Path, expected: str | None) -> str:
    sums = folder / request["digests"]
    listed = dict(reversed(line.split("  ", 1)) for line in sums.read_text().splitlines())
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    present.discard(request["digests"])
    require(not (lost := listed.keys() - present), f"{min(lost, default='')} is missing")
    require(not (foreign := present - listed.keys()), f"{min(foreign, default='')} does not belong to the model")
    for name, digest in listed.items():
        received = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        require(received == digest, f"{name} was changed: expected SHA-256 {digest}, received {received}")
    if expected:
        require(
            hashlib.sha256(sums.read_bytes()).hexdigest() == expected,
            "its list of digests is not the exported one",
        )
    return f"{len(listed)} files have their SHA-256"


def load_signature(folder: Path) -> tuple[Any, Any, float]:
    began = time.perf_counter()
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:
        raise RefusedError(f"tf.saved_model.load fails: {str(error).splitlines()[0]}") from error
    require(
        "serving_default" in model.signatures,
        f"signature serving_default is missing: {list(model.signatures)}",
    )
    return model, model.signatures["serving_default"], time.perf_counter() - began


def check_contract(signature: Any, contract: dict[str, Any]) -> str:
    shape = (None, *contract["image_shape"])
    wanted = {"images": tf.TensorSpec(shape, tf.uint8)}
    classes = len(contract["classes"])
    given = {
        "probabilities": tf.TensorSpec((None, classes), tf.float32),
        "class_id": tf.TensorSpec((None,), tf.int64),
    }
    inputs = signature.structured_input_signature[1]
    for kind, expected, received in (
        ("input", wanted, inputs),
        ("output", given, signature.structured_outputs),
    ):
        require(
            expected.keys() == received.keys(),
            f"the signature's {kind}s must be {sorted(expected)}, received {sorted(received)}",
        )
        for name, spec in expected.items():
            same = received[name].dtype == spec.dtype and received[name].shape.is_compatible_with(spec.shape)
            require(same, f"{kind} {name} must be {spec.dtype.name} {spec.shape}, received {received[name]}")
    return f"images uint8 {shape} to probabilities float32 and class_id int64 of {classes} classes"


def answer(signature: Any, images: np.ndarray) -> np.ndarray:
    """Probabilities and class ids, with what must hold for any answer."""
    result = signature(images=tf.constant(images))
    probabilities, class_id = result["probabilities"].numpy(), result["class_id"].numpy()
    require(len(probabilities) == len(images) == len(class_id), "answers and images differ in number")
    require(bool(np.isfinite(probabilities).all()), "a probability is not a finite number")
    require(bool(np.abs(probabilities.sum(axis=-1) - 1).max() < TOLERANCE), "probabilities do not sum to 1")
    require(bool((class_id == probabilities.argmax(axis=-1)).all()), "class_id is not the most probable class")
    return np.asarray(probabilities)


def large(images: np.ndarray) -> int:
    return max(1, min(LARGE, LARGE_BYTES // images[:1].nbytes))


def answer_all(signature: Any, images: np.ndarray) -> np.ndarray:
    size = large(images)
    return np.concatenate([answer(signature, images[at : at + size]) for at in range(0, len(images), size)])


def compare(expected: np.ndarray, received: np.ndarray, what: str) -> float:
    """The largest difference between two sets of probabilities, refused above the tolerance."""
    require(
        expected.shape == received.shape,
        f"{what}: expected shape {expected.shape}, received {received.shape}",
    )
    difference = float(np.abs(expected - received).max())
    require(
        difference <= TOLERANCE,
        f"{what}: answers differ by {difference:.2g} from those of the trained model, where {TOLERANCE} is allowed",
    )
    return difference


def check_golden(signature: Any, golden: dict[str, np.ndarray]) -> str:
    difference = compare(golden["probabilities"], answer(signature, golden["images"]), "golden examples")
    return f"{len(golden['images'])} golden examples answer the same (largest difference {difference:.1e})"


def check_batches(signature: Any, golden: dict[str, np.ndarray]) -> str:
    images, sizes = golden["images"], (1, 7, large(golden["images"]))
    for size in sizes:
        rows = np.arange(size) % len(images)
        compare(golden["probabilities"][rows], answer(signature, images[rows]), f"batch of {size}")
    return f"batches of {', '.join(map(str, sizes))} answer the same"


def score_test(signature: Any) -> tuple[str, dict[str, Any]]:
    """Score every test example with the model that ships; its answers must be the evaluation's."""
    images = np.load(request["test_images"], mmap_mode="r", allow_pickle=False)
    labels = np.load(request["test_labels"], allow_pickle=False)
    expected = np.load(request["predictions"], allow_pickle=False)
    received = answer_all(signature, images)
    difference = compare(expected, received, "test split")
    # Two classes within the tolerance of each other are a tie that rounding may break either way.
    top = np.sort(expected, axis=-1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE
    same = expected.argmax(axis=-1) == received.argmax(axis=-1)
    require(bool(same[clear].all()), "test split: a predicted class is not the evaluation's")
    detail = f"all {len(labels)} test examples answer as in the evaluation (largest difference {difference:.1e})"
    return detail, {"max_difference": difference, "ties": int((~clear).sum()), **count(labels, received)}


def count(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What decides about a model: examples, right answers and answers of each class."""
    predicted, classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
    right = predicted == labels
    each = {"examples": labels, "right": labels[right], "predicted": predicted}
    counts = {f"class_{what}": np.bincount(of, minlength=classes).tolist() for what, of in each.items()}
    return {"test_examples": len(labels), "test_accuracy": float(right.mean()), **counts}


def measure_latency(image: np.ndarray, *signatures: Any) -> list[dict[str, float]]:
    """Milliseconds of one image, for each of the signatures, called in turn."""
    tensor = tf.constant(image)
    seconds: list[list[float]] = [[] for _ in signatures]
    for _ in range(CALLS):
        for signature, taken in zip(signatures, seconds, strict=True):
            began = time.perf_counter()
            signature(images=tensor)["probabilities"].numpy()
            taken.append(time.perf_counter() - began)
    found = [np.percentile(taken, [50, 99]) * 1000 for taken in seconds]
    return [{"latency_p50_ms": float(p50), "latency_p99_ms": float(p99)} for p50, p99 in found]


def verify() -> dict[str, Any]:
    folder = Path(request["saved_model"])
    checks = {"isolation": check_isolation(), "digests": check_digests(folder, request.get("export_digest"))}
    extra = (folder / request["digests"]).parent
    contract = json.loads((extra / "contract.json").read_text())
    with np.load(extra / "golden.npz", allow_pickle=False) as archive:
        golden = dict(archive)
    _model, signature, load_seconds = load_signature(folder)
    checks["contract"] = check_contract(signature, contract)
    checks["golden"] = check_golden(signature, golden)
    checks["batches"] = check_batches(signature, golden)
    figures: dict[str, Any] = {"load_seconds": load_seconds, "tensorflow": tf.__version__}
    if "test_images" in request:
        checks["test_split"], scored = score_test(signature)
        figures |= scored
    figures |= measure_latency(golden["images"][:1], signature)[0]
    require(
        all(math.isfinite(value) for value in figures.values() if isinstance(value, float)),
        "a figure is missing",
    )
    checks["isolation"] = check_isolation()  # still so, now that the model is loaded
    return {"checks": checks, **figures}


def compare_with_champion() -> dict[str, Any]:
    """Both models as they ship, on the same test examples: where each is right, and how fast."""
    folder, theirs = Path(request["saved_model"]), Path(request["champion"])
    _model, signature, _ = load_signature(folder)
    try:
        check_digests(theirs, None)
        contracts = [
            json.loads((each / request["digests"]).with_name("contract.json").read_text()) for each in (folder, theirs)
        ]
        for what, name in (("image_shape", "images"), ("classes", "classes")):
            ours, other = (contract[what] for contract in contracts)
            require(ours == other, f"it is for {name} {other}, and the challenger for {ours}")
        _champion, champion, _ = load_signature(theirs)
        images = np.load(request["test_images"], mmap_mode="r", allow_pickle=False)
        labels = np.load(request["test_labels"], allow_pickle=False)
        predicted = [answer_all(each, images).argmax(axis=-1) for each in (champion, signature)]
    except (RefusedError, OSError, ValueError, KeyError) as error:
        return {"not_comparable": " ".join(str(error).split())}
    they_right, we_right = (each == labels for each in predicted)
    latencies = measure_latency(np.asarray(images[:1]), champion, signature)
    sides = {}
    for side, right, latency in zip(("champion", "challenger"), (they_right, we_right), latencies, strict=True):
        recalls = {name: float(right[labels == name].mean()) for name in np.unique(labels).tolist()}
        worst = min(recalls, key=lambda name: recalls[name])
        sides[side] = {
            "accuracy": float(right.mean()),
            "lowest_recall": recalls[worst],
            "lowest_class": contracts[0]["classes"][worst],
            **latency,
        }
    return {
        **sides,
        "both_right": int((we_right & they_right).sum()),
        "only_challenger": int((we_right & ~they_right).sum()),
        "only_champion": int((they_right & ~we_right).sum()),
        "both_wrong": int((~we_right & ~they_right).sum()),
    }


if __name__ == "__main__":
    for line in sys.stdin:  # until whoever asks has gone
        request.clear()
        request |= json.loads(line)
        try:
            report = compare_with_champion() if "champion" in request else verify()
        except RefusedError as refusal:
            report = {"refused": str(refusal)}
        print(json.dumps(report), flush=True)
