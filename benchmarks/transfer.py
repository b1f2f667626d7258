"""What given weights are worth: ten images a class of MNIST, from scratch and from Fashion-MNIST, over several seeds.

Usage: ``python benchmarks/transfer.py [SEEDS]``. Needs MNIST and Fashion-MNIST (LAYERFLOW_MIRROR, or the network).
Each seed draws other images. The network was never shown a digit before: it has learned from clothes.
"""

import statistics
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from subsets import write

from layerflow import artifacts, devices, store
from layerflow.data.arrays import images_and_labels
from layerflow.data.load import load
from layerflow.evaluation.evaluate import evaluate
from layerflow.models.build import build
from layerflow.records import DatasetRef, Evaluation, ModelRef, TrainedRef
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train
from layerflow.weights import FirstWeights

NETWORK = {"name": "cnn", "width": 16}
#: Of the 60,000 images of clothes; and of the 100 digits, of which ten more a class choose the best epoch.
ON_MANY = TrainingConfig(epochs=8, batch_size=128, learning_rate=3e-3, schedule="CosineDecay", patience=100)
ON_FEW = TrainingConfig(epochs=60, batch_size=10, patience=100)
IMAGES = 10  # a class


def few(data: DatasetRef, seed: int, folder: Path) -> DatasetRef:
    """Of each class ``IMAGES`` of the training images to learn from, as many to validate, and the whole test split."""
    images, labels = images_and_labels(data, "train")
    chance = np.random.default_rng(seed)
    chosen = np.concatenate(
        [chance.choice(np.flatnonzero(labels == label), 2 * IMAGES, replace=False) for label in np.unique(labels)]
    ).reshape(-1, 2, IMAGES)
    rows = {"train": chosen[:, 0].ravel(), "validation": chosen[:, 1].ravel()}
    splits = {split: (images[which], labels[which]) for split, which in rows.items()}
    return write(data, data.classes, splits | {"test": images_and_labels(data, "test")}, folder)


def accuracy(data: DatasetRef, weights: FirstWeights | None, seed: int, key: str) -> float:
    """That on the test split of a network which learned from ``data``."""
    config = ModelConfig.model_validate(NETWORK | ({"weights": "champion"} if weights else {}))
    model = artifacts.make("build_model", key, ModelRef, lambda folder: build(config, data, seed, folder, weights))
    settings = ON_FEW.model_copy(update={"seed": seed})
    trained = artifacts.make("train_model", key, TrainedRef, lambda folder: train(settings, model, data, folder))
    return artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, data, folder)).accuracy


def main() -> None:
    """Train with every seed, and print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    devices.set_up(DevicesConfig())
    clothes, digits = (
        artifacts.make("load_data", name, DatasetRef, lambda folder, name=name: load(DataConfig(name=name), folder))
        for name in ("fashion_mnist", "mnist")
    )
    model = artifacts.make(
        "build_model",
        "clothes",
        ModelRef,
        lambda folder: build(ModelConfig.model_validate(NETWORK), clothes, 0, folder),
    )
    known = artifacts.make("train_model", "clothes", TrainedRef, lambda folder: train(ON_MANY, model, clothes, folder))
    weights = FirstWeights(
        digest=known.digest, classes=clothes.classes, source="Fashion-MNIST", file=store.path(known.keras)
    )
    found: dict[str, list[float]] = {"from scratch": [], "from Fashion-MNIST": []}
    for seed in range(seeds):
        data = artifacts.make(
            "load_data", f"few-{seed}", DatasetRef, lambda folder, seed=seed: few(digits, seed, folder)
        )
        for (name, scores), given in zip(found.items(), (None, weights), strict=True):
            scores.append(accuracy(data, given, seed, f"{name.replace(' ', '-')}-{seed}"))
            print(f"{name}, seed {seed}: {scores[-1]:.4f}", flush=True)
    table = Table("", "test accuracy (min to max)", title=f"100 digits, median of {seeds} seeds")
    for name, scores in found.items():
        table.add_row(name, f"{statistics.median(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})")
    gain = statistics.median(after - before for before, after in zip(*found.values(), strict=True))
    table.add_row("gain of a seed", f"{gain:+.4f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
