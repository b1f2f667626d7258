"""Kill a process that publishes at random moments, and see that no version is torn and no champion lost.

Usage: ``python benchmarks/publish_drill.py [KILLS] [SEED]``. On the digits, in a store of its own. The process exports,
verifies, promotes, prunes and rolls back in a loop. After each kill every visible version must be as the ledger says,
and the highest one at least what was announced; the next process must load it, score it, and publish over it.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

from layerflow.registry import versions as registry

NAME = "drill"
#: Publishes networks that differ a little, over and over; every third time it rolls back.
SCRIPT = """
import time
import numpy as np
from layerflow.models.networks import load_model
from layerflow import checksums
from layerflow import artifacts, store
from layerflow.models.build import build
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import process, saved_model, verification
from layerflow.registry import publishing, versions
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig
from layerflow.config import RetrainConfig
from layerflow.data.load import load
from layerflow.registry.receipt import Challenger
from layerflow.registry.promotion import promote
from layerflow.records import DataReport, DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef, Verification
from layerflow.registry.rollback import roll_back
from layerflow.data.validation import validate

# One process verifies everything: most kills would hit the import of TensorFlow in new ones otherwise.
process._Process.has_answered = property(lambda self: False, lambda self, value: None)
verifier = process.Verifier()
verifier.start()
gate = {"force": "a drill", "baseline": "none", "min_class_recall": 0}
config = RetrainConfig.model_validate({"registry": {"name": "drill", "keep": 3}, "gate": gate})
data = artifacts.make("load_data", "drill", DatasetRef, lambda folder: load(DataConfig(), folder))
checked = artifacts.make(
    "validate_data", "drill", DataReport, lambda folder: validate(config.checks, data, None)
)
model = artifacts.make("build_model", "drill", ModelRef, lambda folder: build(ModelConfig(), data, 0, folder))

def vary(folder):
    network = load_model("mlp", store.path(model.keras))
    random = np.random.default_rng(time.time_ns())
    network.set_weights([weight + random.normal(0, 0.01, weight.shape) for weight in network.get_weights()])
    network.save(folder / "model.keras")
    digest = checksums.sha256(folder / "model.keras")
    counts = {"epochs": 1, "best_epoch": 1, "steps": 1, "threads": 1, "replicas": 1}
    return TrainedRef(model="mlp", digest=digest, compiled="xla", feed="resident", history=(), **counts)

def announced(*arguments, publish=publishing.publish):
    print("publishing", flush=True)
    return publish(*arguments)

publishing.publish = announced
number = 0
while True:
    number += 1
    key = str(time.time_ns())
    trained = artifacts.make("train_model", key, TrainedRef, vary)
    scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, data, folder))
    exported = artifacts.make("export_model", key, ExportRef, lambda folder: saved_model.export(trained, data, folder))
    proved = artifacts.make(
        "verify_export", key, Verification, lambda folder: verification.verify(exported, scored, data, verifier)
    )
    challenger = Challenger(data, checked, model, trained, scored, exported, proved)
    made = promote(config, challenger, "drill", verifier=verifier)
    assert made.status == "promoted", made
    assert made.champion_version is None or made.comparison, made
    print("published", made.version, versions.model_digest("drill", made.version), flush=True)
    if number % 3 == 2:
        back = roll_back("drill", verifier=verifier)
        print("published", back.version, back.digest, flush=True)
"""


def publish_and_kill(store: Path, moment: Random) -> list[tuple[int, str]]:
    """Run the loop, kill it after its first version, and return what it announced.

    Every second kill comes within the 15 ms that follow the beginning of a publication.
    """
    errors = store / "errors.txt"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "LAYERFLOW_STORE": str(store), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    aimed, after = moment.random() < 0.5, moment.uniform(0, 1)
    awaited = "publishing" if aimed else "published"
    announced, killer = [], None
    assert process.stdout is not None
    for line in process.stdout:
        if killer is None and line.startswith(awaited) and (announced or not aimed):
            killer = threading.Timer(after * (0.015 if aimed else 4), process.kill)
            killer.start()
        if line.startswith("published "):
            _, version, digest = line.split()
            announced.append((int(version), digest))
    process.wait()
    if killer is None or killer.is_alive():
        raise RuntimeError(f"the next run did not succeed: {errors.read_text()[-3000:]}")
    return announced


def what_is_wrong(announced: list[tuple[int, str]]) -> list[str]:
    """What a server or the next run would stumble over."""
    versions = registry.numbers(NAME)
    wrong = [f"version {version}: {damage}" for version in versions if (damage := registry.damage(NAME, version))]
    wrong += registry.complaints(NAME)
    if not versions or versions[0] < announced[-1][0]:
        wrong.append(f"champion {announced[-1][0]} is lost: {versions}")
    for version, digest in announced:
        if version in versions and registry.model_digest(NAME, version) != digest:
            wrong.append(f"version {version} is another model than was announced")
    return wrong


def drill(kills: int, seed: int) -> int:
    """Kill so many times; return how many things were wrong."""
    moments, failures, published = Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        os.environ["LAYERFLOW_STORE"] = scratch
        last: list[tuple[int, str]] = []
        for number in range(1, kills + 1):
            announced = publish_and_kill(store, moments)
            published += len(announced)
            if last and announced[0][0] <= last[-1][0]:
                failures += 1
                print(f"a number was given twice: {announced[0][0]} after {last[-1][0]}", flush=True)
            for wrong in what_is_wrong(announced):
                failures += 1
                print(wrong, flush=True)
            last = announced
            if number % 10 == 0 or number == kills:
                print(f"{number} kills, {published} versions published, {failures} wrong", flush=True)
    return failures


if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    sys.exit(drill(kills, seed) > 0)
