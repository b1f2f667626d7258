"""What must be true of a model before it is served."""

import hashlib
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from .answering import TOLERANCE, Answering, large
from .images import Images
from .refusal import require

Request = dict[str, Any]
#: Batch sizes that are tried: each up to the first number, where a server's requests are, and so many random ones.
SMALL_SIZES, RANDOM_SIZES = 16, 8
#: Calls of one image each for the latency: the 99th percentile then has two beyond it.
CALLS = 200


def check_isolation(request: Request) -> str:
    found = [name for name in request["must_not_import"] if importlib.util.find_spec(name)]
    require(
        not found,
        f"this process could import {', '.join(found)}, so it proves nothing about a server that can't",
    )
    more = "neither TensorFlow nor " if "tensorflow" in request["must_not_import"] else "neither "
    return f"{more}Keras nor code of the project can be imported"


def check_digests(request: Request, folder: Path, expected: str | None) -> str:
    """Check that the folder has the files of its ``SHA256SUMS``, with their digests, and no others.

    But for the signature of a version, which is of the list too, so that the list can't have it.
    """
    sums = folder / request["digests"]
    listed = dict(reversed(line.split("  ", 1)) for line in sums.read_text().splitlines())
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    present -= {request["digests"], "model.sig"}
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


def require_close(expected: np.ndarray, received: np.ndarray, what: str) -> float:
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


def check_golden(model: Answering, golden: dict[str, np.ndarray], what: str = "golden examples") -> str:
    difference = max(
        require_close(golden["probabilities"], model.answer(golden["images"], served), what) for served in (False, True)
    )
    if model.threshold is not None:
        model.check_accepted(golden["probabilities"].max(axis=-1), golden["accepted"])
    return f"{len(golden['images'])} {what} answer the same (largest difference {difference:.1e})"


def check_batches(model: Answering, golden: dict[str, np.ndarray], chance: np.random.Generator) -> str:
    """An answer must not depend on the size of the batch, nor on the images beside it."""
    images, most = golden["images"], large(golden["images"])
    small = range(1, min(SMALL_SIZES, most) + 1)
    for size in (*small, most, *chance.integers(1, most, RANDOM_SIZES, endpoint=True).tolist()):
        rows = chance.integers(len(images), size=size)
        received = model.answer(images[rows], served=bool(chance.integers(2)))
        require_close(golden["probabilities"][rows], received, f"batch of {size}")
    return f"batches of 1 to {small[-1]}, of {RANDOM_SIZES} random sizes, and of {most} answer the same"


def score_test(request: Request, model: Answering, chance: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Score every test example with the model that ships; its answers must be the evaluation's."""
    images, labels = test_split(request)
    expected = np.load(request["predictions"], allow_pickle=False)
    received = model.answer_all(images, chance)
    difference = require_close(expected, received, "test split")
    # Two classes within the tolerance of each other are a tie that rounding may break either way.
    top = np.sort(expected, axis=-1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE
    same = expected.argmax(axis=-1) == received.argmax(axis=-1)
    require(bool(same[clear].all()), "test split: a predicted class is not the evaluation's")
    detail = f"all {len(labels)} test examples answer as in the evaluation (largest difference {difference:.1e})"
    if model.threshold is not None:
        accepted = int((received.max(axis=-1) >= np.float32(model.threshold)).sum())
        detail += f", {accepted} of them are accepted"
    predicted = received.argmax(axis=-1)
    counts = {**count(labels, predicted, received.shape[-1]), **count_slices(request, predicted == labels)}
    return detail, {"max_difference": difference, "ties": int((~clear).sum()), **counts}


def count(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """What decides about a model: examples, right answers and answers of each class."""
    right = predicted == labels
    each = {"examples": labels, "right": labels[right], "predicted": predicted}
    counts = {f"class_{what}": np.bincount(of, minlength=classes).tolist() for what, of in each.items()}
    return {"test_examples": len(labels), "test_accuracy": float(right.mean()), **counts}


def count_slices(request: Request, right: np.ndarray) -> dict[str, Any]:
    """Examples and right answers of each slice, by the numbers in ``test_slices``; nothing where there is no such."""
    if "test_slices" not in request:
        return {}
    slices = np.load(request["test_slices"], allow_pickle=False)
    fits = slices.ndim == 2 and len(slices) == len(right) and slices.min() >= 0 and slices.max() < slices.size
    require(bool(fits), "the slices are not those of the test split")
    number = int(slices.max()) + 1
    each = {"examples": slices, "right": slices[right]}
    return {f"slice_{what}": np.bincount(of.ravel(), minlength=number).tolist() for what, of in each.items()}


def test_split(request: Request) -> tuple[Images, np.ndarray]:
    """The test images and their labels; those in ``rows`` alone where the request has some.

    ``test_images`` is the file of an array, or names ``packs``, such files, and in ``rows`` a file of places in them.
    """
    where, labels = request["test_images"], np.load(request["test_labels"], allow_pickle=False)
    files = where["packs"] if isinstance(where, dict) else [where]
    packs = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    if isinstance(where, dict):
        places = np.load(where["rows"], allow_pickle=False)
    else:
        places = np.stack([np.zeros(len(labels), np.int64), np.arange(len(labels))], axis=-1)
    rows = np.array(request["rows"], np.int64) if "rows" in request else slice(None)
    return Images(packs, places[rows]), labels[rows]


def score_again(request: Request, model: Answering, golden: dict[str, np.ndarray], chance: np.random.Generator) -> str:
    """After all those calls, the model must still answer as before."""
    detail = check_golden(model, golden, "golden examples, asked again at the end,")
    if "test_images" in request:
        images, _ = test_split(request)
        expected = np.load(request["predictions"], mmap_mode="r", allow_pickle=False)
        rows = np.sort(chance.choice(len(images), min(large(images), len(images)), replace=False))
        received = model.answer(images[rows], served=bool(chance.integers(2)))
        require_close(np.asarray(expected[rows]), received, "test examples, asked again at the end")
    return detail


def measure_latency(image: np.ndarray, *models: Answering) -> list[dict[str, float]]:
    """Milliseconds of one image, for each of the models, called in turn."""
    asking = [model.asking(image) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(CALLS):
        for ask, taken in zip(asking, seconds, strict=True):
            began = time.perf_counter()
            ask()
            taken.append(time.perf_counter() - began)
    found = [np.percentile(taken, [50, 99]) * 1000 for taken in seconds]
    return [{"latency_p50_ms": float(p50), "latency_p99_ms": float(p99)} for p50, p99 in found]


def read_contract(request: Request, folder: Path) -> dict[str, Any]:
    contract: dict[str, Any] = json.loads((folder / request["digests"]).with_name("contract.json").read_text())
    return contract
