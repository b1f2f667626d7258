"""Verifying a model of one file, in a process that has its runtime and NumPy, and no TensorFlow."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .answering import Answering, threshold_in
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

#: How the names of TensorFlow's own shared libraries begin.
_TENSORFLOW = ("libtensorflow_cc", "libtensorflow_framework", "_pywrap_tensorflow_internal")


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
        self.contract, self.threshold, self.is_exact = contract, threshold_in(contract), is_exact
        require(
            is_exact or self.threshold is None,
            "integers of 8 bits round probabilities to 1/256, so that the threshold of export.abstain would not hold",
        )

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
        return self.answer_with_class(images, served)[:, 1:]

    def answer_with_class(self, images: np.ndarray, served: bool = False) -> np.ndarray:
        """The number of the class, which clients read, and the probabilities: ``(images, 1 + classes)``."""
        try:
            answers = self.runtime.run(np.ascontiguousarray(images))
        except Exception as error:
            raise RefusedError(f"a batch of {len(images)} fails: {first_line(error)}") from error
        same = all(len(answer) == len(images) for answer in answers.values())
        require(same, f"a batch of {len(images)}: answers and images differ in number")
        self.check_answers(answers)
        return np.concatenate([answers["class_id"][:, None], answers["probabilities"]], axis=-1, dtype=np.float32)

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
    if request["is_exact"]:
        checks["golden"] = check_golden(model, golden)
    else:
        checks["golden"], golden = check_quantized(model, golden)
    checks["batches"] = check_batches(model, golden, chance)
    figures: dict[str, Any] = {"runtime": model.runtime.name}
    if "test_images" in request:
        checks["test_split"], scored = score_test(request, model, chance)
        figures |= scored
    figures |= measure_latency(golden["images"][:1], model)[0]
    checks["again"] = check_golden(model, golden, "golden examples, asked again at the end,")
    check_isolation(request)  # still so, now that the model is loaded
    checks["isolation"] += f"; {check_loaded()}"
    return {"checks": checks, "seed": request["seed"], **figures}


def check_quantized(model: Portable, golden: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """Most golden examples must get the trained model's class; the answers, one by one, are what batches must give."""
    images = golden["images"]
    alone = np.concatenate([model.answer(images[row : row + 1]) for row in range(len(images))])
    same = int((alone.argmax(axis=-1) == golden["probabilities"].argmax(axis=-1)).sum())
    require(2 * same > len(images), f"only {same} of {len(images)} golden examples get the class of the trained model")
    detail = f"{same} of {len(images)} golden examples get the class of the trained model"
    return detail, {"images": images, "probabilities": alone}


def check_loaded() -> str:
    """No library of TensorFlow may be in this process: no module of it, and on Linux no file of it that is mapped."""
    mapped = Path("/proc/self/maps")
    lines = mapped.read_text().splitlines() if mapped.exists() else []
    found = sorted({line.rsplit("/", 1)[-1] for line in lines if line.rsplit("/", 1)[-1].startswith(_TENSORFLOW)})
    found += [name for name in ("tensorflow", "keras") if name in sys.modules]
    require(not found, f"TensorFlow is loaded in this process: {', '.join(found)}")
    return f"no {'file' if lines else 'module'} of TensorFlow is loaded"


def score_test(request: Request, model: Portable, chance: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Score every test example, and count where the file and the SavedModel are right."""
    images, labels = test_split(request)
    expected = np.load(request["predictions"], allow_pickle=False)
    answers = model.answer_all(images, chance, model.answer_with_class)
    predicted, received = answers[:, 0].astype(np.int64), answers[:, 1:]
    require(expected.shape == received.shape, f"test split: expected shape {expected.shape}, received {received.shape}")
    if request["is_exact"]:
        difference, how = require_close(expected, received, "test split"), "answer as in the evaluation"
    else:
        difference, how = float(np.abs(expected - received).max()), "are answered"
    ours, theirs = predicted == labels, expected.argmax(axis=-1) == labels
    both = {"only_this": int((ours & ~theirs).sum()), "only_saved_model": int((~ours & theirs).sum())}
    counts = {**count(labels, predicted, received.shape[-1]), **count_slices(request, ours)}
    detail = f"all {len(labels)} test examples {how} (largest difference {difference:.1e})"
    return detail, {"max_difference": difference, **counts, **both}


def main() -> None:
    """Answer requests with the runtime that each names."""
    serve(verify)
