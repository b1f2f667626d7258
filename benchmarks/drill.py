"""Kill training at random moments and see that it ends with the bits of a training that was left alone.

Usage: ``python benchmarks/drill.py [KILLS] [SEED] [plain|recipe|photographs]``. Trains in a store of its own: on the
digits, without more, or with augmentation, mixed labels, class weights, averaged weights, a metric and a callback, in
the two phases of fine-tuning; or a MobileNet on photographs of 96x96 pixels, in these two phases.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from photos import make_photographs

#: Settings of the groups, by group. A network that is fine-tuned starts from a file of weights.
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"training": {}},
    "recipe": {
        "training": {
            "epochs": 12,  # each takes five times as long
            "ema": 0.98,
            "class_weight": "balanced",
            "metrics": ["AUC"],
            "callbacks": [{"class_name": "ReduceLROnPlateau", "config": {"patience": 2, "factor": 0.7}}],
            "loss": {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}},
        },
        "augment": {
            "layers": [
                {"class_name": "RandomTranslation", "config": {"height_factor": 0.1, "width_factor": 0.1}},
                {"class_name": "RandomErasing", "config": {"scale": [0.02, 0.1]}},
                "MixUp",
            ]
        },
        "finetune": {"head_epochs": 6, "unfreeze": "all"},
    },
    "photographs": {
        "data": {"name": "folder", "image_size": "96x96"},
        "model": {"name": "applications:MobileNetV3Small"},
        "training": {"epochs": 6, "batch_size": 8},
        "finetune": {"head_epochs": 3, "unfreeze": "all"},
    },
}
#: How many there are of them.
PHOTOGRAPHS = 100
#: Long enough that a kill finds it at work: 20 epochs of one-step calls, saved about every call.
SCRIPT = """
import json
import sys
from pathlib import Path
import keras
from layerflow import devices
from layerflow import artifacts
from layerflow.models.build import build, make_model
from layerflow.training import session
from layerflow.training.train import train
from layerflow.training import engine
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.data.load import load
from layerflow.records import DatasetRef, ModelRef
from layerflow.weights import FirstWeights
devices.set_up(DevicesConfig(threads=1))
engine.CHUNK_SECONDS = 0.02
session._SAVING_SHARE = 1e6
folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
of_data, of_model = DataConfig(**given.get("data", {})), given.get("model", {})
data = artifacts.make("load_data", "drill", DatasetRef, lambda folder: load(of_data, folder))


def make(made):
    if "finetune" not in given:
        return build(ModelConfig(), data, 0, made)
    file = made.parent / "first.weights.h5"
    keras.utils.set_random_seed(1)  # the same in each store
    make_model(ModelConfig(**of_model), len(data.classes), data.image_shape).save_weights(file)
    weights = FirstWeights(digest="first", source="first", file=file)
    return build(ModelConfig(weights=str(file), **of_model), data, 0, made, weights)


model = artifacts.make("build_model", "drill", ModelRef, make)
folder.mkdir(exist_ok=True)
print("begins", flush=True)
length = {"epochs": 60, "patience": 60, "batch_size": 4, "checkpoint_seconds": 0.001}
how = {"augment": AugmentConfig(**given.get("augment", {})), "finetune": FinetuneConfig(**given.get("finetune", {}))}
made = train(TrainingConfig(**length | given["training"]), model, data, folder, **how)
print("DIGEST", [epoch.model_dump(exclude={"seconds"}) for epoch in made.history], flush=True)
"""


def run(store: Path, kill_after: float | None, recipe: dict[str, Any]) -> tuple[bool, str, float]:
    """Train in a process of its own, killed after so many seconds; whether it ended, its result, its seconds."""
    folder = store / "made"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(recipe)],
        env={**os.environ, "LAYERFLOW_STORE": str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begins\n":
            break
    began = time.monotonic()
    if kill_after is not None:
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    out = process.stdout.read()
    process.wait()
    seconds = time.monotonic() - began
    if process.returncode:
        return False, "", seconds
    return True, result(folder, out), seconds


def result(folder: Path, history: str) -> str:
    """Digest of the final weights and of the history."""
    import keras

    import layerflow.models.application
    import layerflow.models.mlp  # noqa: F401  (makes the saved models loadable)

    digest = hashlib.sha256(history.encode())
    for weights in keras.models.load_model(folder / "model.keras", compile=False).get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()


def drill(kills: int, seed: int, name: str = "plain") -> int:
    """Kill ``kills`` times, over as many trainings as it takes; return how many of these ended with other bits."""
    chance, killed, trainings, wrong = random.Random(seed), 0, 0, 0
    recipe: dict[str, Any] = RECIPES[name]
    with tempfile.TemporaryDirectory() as scratch:
        if "data" in recipe:
            make_photographs(Path(scratch) / "photographs", PHOTOGRAPHS)
            recipe = {**recipe, "data": {**recipe["data"], "path": f"{scratch}/photographs"}}
        _, expected, seconds = run(Path(scratch) / "whole", None, recipe)
        while killed < kills:
            store = Path(scratch) / f"store-{trainings}"
            while True:
                ended, received, _ = run(store, chance.uniform(0, seconds) if killed < kills else None, recipe)
                if ended:
                    break
                killed += 1
            trainings += 1
            wrong += received != expected
            print(f"{killed} kills, {trainings} trainings, {wrong} with other bits", flush=True)
    return wrong


if __name__ == "__main__":
    given = [*sys.argv[1:], *("100", "0", "plain")[len(sys.argv) - 1 :]]
    sys.exit(bool(drill(int(given[0]), int(given[1]), given[2])))
