"""Answering requests: one model verified, or two compared."""

import base64
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .checks import (
    Request,
    check_batches,
    check_digests,
    check_golden,
    check_isolation,
    measure_latency,
    read_contract,
    score_again,
    score_test,
    test_split,
)
from .files import check_files
from .model import Model
from .refusal import require
from .requests import serve


def verify(request: Request) -> dict[str, Any]:
    """Check an exported model, and give what was checked and measured.

    Raises:
        RefusedError: If a check fails.
    """
    folder, chance = Path(request["saved_model"]), np.random.default_rng(request["seed"])
    digests = check_digests(request, folder, request.get("export_digest"))
    checks = {"isolation": check_isolation(request), "digests": digests}
    contract = read_contract(request, folder)
    with np.load((folder / request["digests"]).with_name("golden.npz"), allow_pickle=False) as archive:
        golden = dict(archive)
    model = Model(folder)
    checks["graph"] = model.graph
    checks["contract"] = model.check_contract(contract)
    figures: dict[str, Any] = {"load_seconds": model.load_seconds, "tensorflow": tf.__version__}
    with ThreadPoolExecutor(1) as thread:  # its first calls prepare large graphs, which takes as long as all the rest
        files = thread.submit(check_files, folder, request, model, golden, contract, chance.spawn(1)[0])
        checks["golden"] = check_golden(model, golden)
        checks["batches"] = check_batches(model, golden, chance)
        if "test_images" in request:
            checks["test_split"], scored = score_test(request, model, chance)
            figures |= scored
        more, counted = files.result()
    checks, figures = {**checks, **more}, {**figures, **counted}
    figures |= measure_latency(golden["images"][:1], model)[0]
    checks["again"] = score_again(request, model, golden, chance)
    require(
        all(math.isfinite(value) for value in figures.values() if isinstance(value, float)),
        "a figure is missing",
    )
    checks["isolation"] = check_isolation(request)  # still so, now that the model is loaded
    return {"checks": checks, "seed": request["seed"], **figures}


def compare_with_champion(request: Request) -> dict[str, Any]:
    """Both models as they ship, on the same test examples: where each is right, and how fast.

    With ``other_classes``, the champion may know other classes, and is right if it names the right one. With
    ``answers``, the report has the probabilities of both, each of the model's own classes. What goes wrong
    with the challenger, or with the examples, is raised; only the champion's own faults make the two not comparable,
    for a gate may publish then.
    """
    folder, their_folder, chance = (
        Path(request["saved_model"]),
        Path(request["champion"]),
        np.random.default_rng(request["seed"]),
    )
    images, labels = test_split(request)
    contract, challenger = read_contract(request, folder), Model(folder)
    challenger.check_contract(contract)
    ours = challenger.answer_all(images, chance)
    predicted = ours.argmax(axis=-1)
    try:
        check_digests(request, their_folder, None)
        other = read_contract(request, their_folder)
        same = [("image_shape", "images"), ("classes", "classes")]
        for what, name in same[:1] if request.get("other_classes") else same:
            require(
                contract[what] == other[what],
                f"it is for {name} {other[what]}, and the challenger for {contract[what]}",
            )
        champion = Model(their_folder)
        champion.check_contract(other)
        theirs = champion.answer_all(images, chance)
        their_predicted = theirs.argmax(axis=-1)
    except Exception as error:  # whatever is wrong with it
        return {"not_comparable": " ".join(str(error).split())}
    # By name: its number of a class may be another one.
    names = np.array(contract["classes"])
    they_right, we_right = np.array(other["classes"])[their_predicted] == names[labels], predicted == labels
    latencies = measure_latency(np.asarray(images[:1]), champion, challenger)
    rights = {"champion": they_right, "challenger": we_right}
    sides = {
        side: {**as_side(labels, right, contract["classes"]), **latency}
        for (side, right), latency in zip(rights.items(), latencies, strict=True)
    }
    answers = {"champion": theirs, "challenger": ours} if request.get("answers") else {}
    return {
        **sides,
        "answers": {side: as_text(each) for side, each in answers.items()},
        "both_right": int((we_right & they_right).sum()),
        "only_challenger": int((we_right & ~they_right).sum()),
        "only_champion": int((they_right & ~we_right).sum()),
        "both_wrong": int((~we_right & ~they_right).sum()),
    }


def as_side(labels: np.ndarray, right: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """A model's accuracy, and its lowest recall with the name of that class."""
    recalls = {name: float(right[labels == name].mean()) for name in np.unique(labels).tolist()}
    worst = min(recalls, key=lambda name: recalls[name])
    return {"accuracy": float(right.mean()), "lowest_recall": recalls[worst], "lowest_class": classes[worst]}


def as_text(probabilities: np.ndarray) -> dict[str, Any]:
    """An array of ``float32`` for a line of JSON."""
    content = base64.b64encode(np.ascontiguousarray(probabilities, "<f4").data).decode("ascii")
    return {"shape": probabilities.shape, "content": content}


def main() -> None:
    """Answer requests with TensorFlow."""
    # A GPU rounds the factors of float32 products to 10 bits (TF32) by default, which moves answers by 2e-4.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.get_logger().setLevel("ERROR")
    serve(lambda request: compare_with_champion(request) if "champion" in request else verify(request))
