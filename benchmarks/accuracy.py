"""How good the networks become on the whole test splits: accuracy, epochs and minutes, over several seeds.

Usage: ``python benchmarks/accuracy.py [SEEDS] [NAME...]``. Needs MNIST and Fashion-MNIST (LAYERFLOW_MIRROR, or the
network). Finished trainings are kept in the store, so that an interrupted measurement goes on where it stopped.
"""

import statistics
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from layerflow import artifacts, devices
from layerflow.config import RetrainConfig
from layerflow.data.load import load
from layerflow.evaluation.evaluate import evaluate
from layerflow.models.build import build
from layerflow.records import DatasetRef, Evaluation, ModelRef, TrainedRef
from layerflow.training import train as training

_COSINE = {"schedule": "CosineDecay", "patience": 100, "batch_size": 128}
#: What is trained, and the accuracy that it must reach.
RECIPES: dict[str, tuple[dict[str, Any], float]] = {
    "mnist mlp": (
        {
            "data": {"name": "mnist"},
            "model": {"name": "mlp", "hidden": [128], "dropout": 0.2},
            "training": {**_COSINE, "epochs": 30, "learning_rate": 2e-3},
        },
        0.978,
    ),
    "mnist cnn": (
        {
            "data": {"name": "mnist"},
            "model": {"name": "cnn", "width": 16, "shift": 2},
            "training": {**_COSINE, "epochs": 15, "learning_rate": 3e-3},
        },
        0.993,
    ),
    "fashion_mnist cnn": (
        {
            "data": {"name": "fashion_mnist"},
            "model": {"name": "cnn", "width": 16, "flip": True},
            "training": {**_COSINE, "epochs": 12, "learning_rate": 3e-3},
        },
        0.915,
    ),
}


def train(name: str, seed: int) -> tuple[float, float]:
    """Accuracy on the test split, and minutes of training."""
    recipe, _ = RECIPES[name]
    config = RetrainConfig.model_validate({**recipe, "training": {**recipe["training"], "seed": seed}})
    devices.set_up(config.devices_for_model)
    key = f"{name}-{seed}".replace(" ", "-")
    data = artifacts.make("load_data", config.data.name, DatasetRef, lambda folder: load(config.data, folder))
    model = artifacts.make("build_model", key, ModelRef, lambda folder: build(config.model, data, seed, folder))
    trained = artifacts.make(
        "train_model", key, TrainedRef, lambda folder: training.train(config.training, model, data, folder)
    )
    scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, data, folder))
    return scored.accuracy, sum(epoch.seconds for epoch in trained.history) / 60


def main() -> None:
    """Train every recipe with every seed and print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    names = sys.argv[2:] or list(RECIPES)
    table = Table("", "accuracy (min to max)", "wanted", "epochs", "minutes", title=f"median of {seeds} seeds")
    short = False
    for name in names:
        recipe, wanted = RECIPES[name]
        found = []
        for seed in range(seeds):
            found.append(train(name, seed))
            print(f"{name}, seed {seed}: {found[-1][0]:.4f} after {found[-1][1]:.1f} minutes", flush=True)
        accuracies, minutes = zip(*found, strict=True)
        table.add_row(
            name,
            f"{statistics.median(accuracies):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})",
            f"{wanted}",
            str(recipe["training"]["epochs"]),
            f"{statistics.median(minutes):.1f}",
        )
        short |= min(accuracies) < wanted
    Console(width=110).print(table)
    sys.exit(short)


if __name__ == "__main__":
    main()
