"""Image files as a model takes them: the same pixels as in training, and the same answers to them."""

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .checks import Request, require_close, test_split
from .model import Model
from .refusal import RefusedError, require

#: Signature, and whether as TensorFlow Serving would ask it.
BOTH_WAYS = list(itertools.product(("image_bytes", "pixels"), (False, True)))
#: Batch sizes in which image files are tried.
SIZES = (1, 7)
#: Files, and bytes of them, that are decoded in one batch; the largest file that is read.
FILES, BYTES, MOST_BYTES = 32, 64 * 2**20, 2**28
#: Refused files that are named.
MOST_NAMED = 5


def check_files(
    folder: Path,
    request: Request,
    model: Model,
    golden: dict[str, np.ndarray],
    contract: dict[str, Any],
    chance: np.random.Generator,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Check the signatures beyond ``serving_default``, of which an earlier layerflow exported none."""
    checks, figures = dict[str, str](), dict[str, Any]()
    if "image_bytes" in contract:
        check_labels((folder / request["digests"]).parent, contract)
        # A first call takes half a second. In a run, the two signatures share the two ways to be served.
        served, both = bool(chance.integers(2)), "test_images" not in request
        ways = BOTH_WAYS if both else [("image_bytes", served), ("pixels", not served)]
        ways = [way for way in ways if way[0] in model.signatures]
        checks["image_bytes"] = check_image_bytes(model, golden, contract, ways, chance)
    if "embedding" in contract:
        checks["embedding"] = check_embedding(model, golden, chance)
    if request.get("test_files") and "pixels" in contract:
        checks["image_files"], figures = check_test_files(request, model, chance)
    return checks, figures


def check_labels(folder: Path, contract: dict[str, Any]) -> None:
    listed = (folder / "labels.txt").read_text()
    require(listed == "".join(f"{name}\n" for name in contract["classes"]), "labels.txt doesn't list the classes")


def check_image_bytes(
    model: Model,
    golden: dict[str, np.ndarray],
    contract: dict[str, Any],
    ways: list[tuple[str, bool]],
    chance: np.random.Generator,
) -> str:
    """Golden examples, encoded here, must become their own pixels and get their own answers."""
    images, names = golden["images"], np.array(contract["classes"]).astype(object)
    files = np.array([tf.io.encode_png(image).numpy() for image in images], object)

    def ask(name: str, served: bool, rows: np.ndarray) -> None:
        answers = model.signatures[name](files[rows], served)
        if name == "pixels":
            same = np.array_equal(answers["images"], images[rows])
            require(same, "image_bytes: a PNG file doesn't become its own pixels")
            return
        model.check_answers(answers)
        require_close(golden["probabilities"][rows], answers["probabilities"], f"image_bytes, batch of {len(rows)}")
        labels = np.array([label.decode() for label in answers["label"]], object)
        require(np.array_equal(labels, names[answers["class_id"]]), "label is not the name of class_id")

    with ThreadPoolExecutor(len(ways)) as threads:  # for the first calls
        list(threads.map(lambda way: ask(way[0], way[1], np.arange(len(files))), ways))
    for (name, served), size in itertools.product(ways, SIZES):
        ask(name, served, chance.integers(len(files), size=size))
    require(
        _is_refused(model, ways[0], np.array([b"no image"], object)),
        "image_bytes answers to bytes that are not an image",
    )
    return f"{len(images)} golden examples, as PNG files, get the same answers"


def _is_refused(model: Model, way: tuple[str, bool], files: np.ndarray) -> bool:
    try:
        model.signatures[way[0]](files, way[1])
    except RefusedError:
        return True
    return False


def check_embedding(model: Model, golden: dict[str, np.ndarray], chance: np.random.Generator) -> str:
    """Features must be finite, and those of an image must not depend on the others in its batch."""
    images, ask = golden["images"], model.signatures["embedding"]
    whole = ask(images, False)["embedding"]
    require(bool(np.isfinite(whole).all()), "a feature is not a finite number")
    room = 1e-4 * max(1.0, float(np.abs(whole).max()))
    for size in (*SIZES, len(images)):
        rows = chance.integers(len(images), size=size)
        found = ask(images[rows], bool(chance.integers(2)))["embedding"]
        same = found.shape == (size, whole.shape[1]) and bool((np.abs(found - whole[rows]) <= room).all())
        require(same, f"embedding, batch of {size}: features depend on the batch")
    return f"{whole.shape[1]} features of each golden example, the same in batches of any size"


def check_test_files(request: Request, model: Model, chance: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """The files that the test images were made of must become these very pixels, or be refused.

    ``test_files`` is a list of path, SHA-256, and row among the test images.
    """
    images, _ = test_split(request)
    same, refused, changed = 0, list[str](), 0
    batch = list[tuple[str, bytes, int]]()
    for number, (path, digest, row) in enumerate(request["test_files"], 1):
        content = _content(path)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            changed += 1
        else:
            batch.append((path, content, row))
        is_last = number == len(request["test_files"])
        if batch and (is_last or len(batch) == FILES or sum(len(content) for _, content, _ in batch) >= BYTES):
            equal, named = _compare(model, batch, images, bool(chance.integers(2)))
            same, refused, batch = same + equal, refused + named, []
    detail = f"{same:,} test files become the pixels of training, bit by bit"
    if refused:
        more = f" and {len(refused) - MOST_NAMED:,} more" if len(refused) > MOST_NAMED else ""
        detail += f"; {len(refused):,} are refused: {', '.join(refused[:MOST_NAMED])}{more}"
    if changed:
        detail += f"; {changed:,} are gone or changed since they were read"
    return detail, {"files_same": same, "files_refused": len(refused)}


def _content(path: str) -> bytes | None:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MOST_BYTES else None


def _compare(model: Model, batch: list[tuple[str, bytes, int]], images: Any, served: bool) -> tuple[int, list[str]]:
    """How many files become their pixels, and those that are refused, with the reason."""
    try:
        files = np.array([content for _, content, _ in batch], object)
        decoded = model.signatures["pixels"](files, served)["images"]
    except RefusedError as refusal:
        if len(batch) > 1:  # which of them it is
            each = [_compare(model, [one], images, served) for one in batch]
            return sum(same for same, _ in each), [name for _, names in each for name in names]
        return 0, [f"{json.dumps(Path(batch[0][0]).name)} ({str(refusal)[:200]})"]
    rows = np.array([row for _, _, row in batch])
    differs = np.flatnonzero((decoded != images[rows]).any(axis=(1, 2, 3)))
    if len(differs):
        path = batch[differs[0]][0]
        raise RefusedError(f"image_bytes: {json.dumps(path)} becomes other pixels than in training")
    return len(batch), []
