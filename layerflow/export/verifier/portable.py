"""Verifying a model of one file, in a process that has its runtime and NumPy, and no TensorFlow."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .answering import TOLERANCE, Answering, threshold_in
from .checks import (
    Request,
    check_batches,
    check_golden,
    check_isolation,
    count,
    count_slices,
    measure_latency,
    read_contract,
    require_close,
    test_split,
)
from .refusal import RefusedError, first_line, require
from .requests import serve
from .runtimes import RUNTIMES, Spec

#: By how much a figure of whole numbers of 8 bits may be off by rounding: they have 256 steps from 0 to 1.
_STEP = 1 / 128


class Portable(Answering):
    """A file of a model, loaded by its runtime.

    Args:
        is_exact: Whether the weights are the trained ones, and so the answers too.
    """

    def __init__(self, runtime: str, content: bytes, contract: dict[str, Any], is_exact: bool) -> None:
        try:
            self.runtime = RUNTIMES[runtime](content)
        except RefusedError:
            raise
        except Exception as error:
            raise RefusedError(f"the runtime can't load it: {first_line(error)}") from error
        self.contract, self.threshold = contract, threshold_in(contract)
        self.sums_to_one, self.slack = is_exact, TOLERANCE if is_exact else _STEP

    def check_contract(self) -> str:
        """What the file takes and gives must be what the contract says."""
        shape, classes = tuple(self.contract["image_shape"]), len(self.contract["classes"])
        wanted = {"images": Spec("uint8", (None, *shape))}
        given = {"probabilities": Spec("float32", (None, classes)), "class_id": Spec("int64", (None,))}
        if self.threshold is not None:
            given["accepted"] = Spec("bool", (None,))
        for kind, expected, received in (
            ("input", wanted, self.runtime.inputs),
            ("output", given, self.runtime.outputs),
        ):
            require(
                expected.keys() == received.keys(),
                f"its {kind}s must be {sorted(expected)}, received {sorted(received)}",
            )
            for name, spec in expected.items():
                found = received[name]
                fits = found.dtype == spec.dtype and _fits(found.shape, spec.shape)
                require(fits, f"{kind} {name} must be {spec.dtype} {spec.shape}, received {found.dtype} {found.shape}")
        return f"images uint8 {(None, *shape)} to {', '.join(sorted(given))} of {classes} classes"

    def answer(self, images: np.ndarray, served: bool = False) -> np.ndarray:
        """Probabilities ``(images, classes)``, with what must hold for any answer."""
        try:
            answers = self.runtime.run(np.ascontiguousarray(images))
        except Exception as error:
            raise RefusedError(f"a batch of {len(images)} fails: {first_line(error)}") from error
        same = all(len(answer) == len(images) for answer in answers.values())
        require(same, f"a batch of {len(images)}: answers and images differ in number")
        self.check_answers(answers)
        return np.array(answers["probabilities"])

    def asking(self, image: np.ndarray) -> Callable[[], object]:
        return lambda: self.runtime.run(image)


def _fits(found: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the wanted one, as far as the file knows it, with room for any number of images.

    LiteRT knows the sizes of what a model gives only for the batch that it has room for.
    """
    return len(found) == len(wanted) and all(
        have in (None, want) or (want is None and number == 0)
        for number, (have, want) in enumerate(zip(found, wanted, strict=True))
    )


def verify(request: Request) -> dict[str, Any]:
    """Check a file, and give what was checked and measured.

    A request names the ``runtime``, the ``file`` and its ``digest``, the ``folder`` of the SavedModel with the golden
    examples, whether the file ``is_exact``, and where there is a test split, the ``test_images``, ``test_labels`` and
    the ``predictions`` of the evaluation.

    Raises:
        RefusedError: If a check fails.
    """
    folder, chance = Path(request["saved_model"]), np.random.default_rng(request["seed"])
    checks = {"isolation": check_isolation(request)}
    content = Path(request["file"]).read_bytes()
    received = hashlib.sha256(content).hexdigest()
    require(received == request["digest"], f"it was changed: expected SHA-256 {request['digest']}, received {received}")
    with np.load((folder / request["digests"]).with_name("golden.npz"), allow_pickle=False) as archive:
        golden = dict(archive)
    model = Portable(request["runtime"], content, read_contract(request, folder), request["is_exact"])
    checks["contract"] = model.check_contract()
    if not request["is_exact"]:  # it must answer as it does itself, one by one
        images = golden["images"]
        alone = np.concatenate([model.answer(images[row : row + 1]) for row in range(len(images))])
        golden = {"images": images, "probabilities": alone}
    checks["golden"] = _check_golden(model, golden)
    checks["batches"] = check_batches(model, golden, chance)
    figures: dict[str, Any] = {"runtime": model.runtime.name}
    if "test_images" in request:
        checks["test_split"], scored = score_test(request, model, chance)
        figures |= scored
    figures |= measure_latency(golden["images"][:1], model)[0]
    checks["again"] = _check_golden(model, golden, "golden examples, asked again at the end,")
    check_isolation(request)  # still so, now that the model is loaded
    checks["isolation"] += f"; {check_loaded()}"
    return {"checks": checks, "seed": request["seed"], **figures}


def _check_golden(model: Portable, golden: dict[str, np.ndarray], what: str = "golden examples") -> str:
    if "accepted" in golden or model.threshold is None:
        return check_golden(model, golden, what)
    difference = require_close(golden["probabilities"], model.answer(golden["images"]), what)
    return f"{len(golden['images'])} {what} answer the same (largest difference {difference:.1e})"


def check_loaded() -> str:
    """No library of TensorFlow may be in this process, by its modules and by the files that are mapped."""
    mapped = Path("/proc/self/maps")  # of Linux
    paths = mapped.read_text().splitlines() if mapped.exists() else []
    found = [line.split("/", 1)[-1] for line in paths if "/tensorflow/" in line]
    found += [name for name in ("tensorflow", "keras") if name in sys.modules]
    require(not found, f"TensorFlow is loaded in this process: {found[:1]}")
    return "no file of TensorFlow is loaded"


def score_test(request: Request, model: Portable, chance: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Score every test example, and count where the file and the SavedModel are right."""
    images, labels = test_split(request)
    expected = np.load(request["predictions"], allow_pickle=False)
    received = model.answer_all(images, chance)
    require(expected.shape == received.shape, f"test split: expected shape {expected.shape}, received {received.shape}")
    difference = float(np.abs(expected - received).max())
    detail = f"all {len(labels)} test examples are answered (largest difference {difference:.1e})"
    if request["is_exact"]:
        require_close(expected, received, "test split")
        detail = f"all {len(labels)} test examples answer as in the evaluation (largest difference {difference:.1e})"
    ours, theirs = received.argmax(axis=-1) == labels, expected.argmax(axis=-1) == labels
    both = {
        "both_right": int((ours & theirs).sum()),
        "only_this": int((ours & ~theirs).sum()),
        "only_saved_model": int((~ours & theirs).sum()),
        "both_wrong": int((~ours & ~theirs).sum()),
    }
    counts = {**count(labels, received), **count_slices(request, ours)}
    return detail, {"max_difference": difference, **counts, **both}


def main() -> None:
    """Answer requests with the runtime that each names."""
    serve(verify)
