"""What given weights are worth: ten images a class of MNIST, from scratch and from Fashion-MNIST, over several seeds.

Usage: ``python benchmarks/transfer.py [SEEDS]``. Needs MNIST and Fashion-MNIST (LAYERFLOW_MIRROR, or the network).
Each seed draws other images. The network was never shown a digit before: it has learned from clothes. It continues
twice: with the default learning rate of ``finetune``, a tenth of the training's, and with the training's own.
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
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train
from layerflow.weights import FirstWeights

NETWORK = {"name": "resnet"}
#: Of the 60,000 images of clothes; and of the 100 digits, of which ten more a class choose the best epoch.
ON_MANY = TrainingConfig(epochs=2, batch_size=128, learning_rate=3e-3, schedule="CosineDecay", patience=100)
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


def accuracy(data: DatasetRef, weights: FirstWeights | None, finetune: FinetuneConfig, seed: int, key: str) -> float:
    """That on the test split of a network which learned from ``data``."""
    config = ModelConfig.model_validate(NETWORK | ({"weights": "champion"} if weights else {}))
    model = artifacts.make("build_model", key, ModelRef, lambda folder: build(config, data, seed, folder, weights))
    settings = ON_FEW.model_copy(update={"seed": seed})
    trained = artifacts.make(
        "train_model", key, TrainedRef, lambda folder: train(settings, model, data, folder, finetune=finetune)
    )
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
    ways = {
        "from scratch": (None, FinetuneConfig()),
        "from Fashion-MNIST, default rate": (weights, FinetuneConfig()),
        "from Fashion-MNIST, rate 0.001": (weights, FinetuneConfig(learning_rate=ON_FEW.learning_rate)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(seeds):
        data = artifacts.make(
            "load_data", f"few-{seed}", DatasetRef, lambda folder, seed=seed: few(digits, seed, folder)
        )
        for number, (name, (given, finetune)) in enumerate(ways.items()):
            found[name].append(accuracy(data, given, finetune, seed, f"{number}-{seed}"))
            print(f"{name}, seed {seed}: {found[name][-1]:.4f}", flush=True)
    table = Table("", "test accuracy (min to max)", "gain of a seed", title=f"100 digits, median of {seeds} seeds")
    scratch = found["from scratch"]
    for name, scores in found.items():
        gain = statistics.median(after - before for before, after in zip(scratch, scores, strict=True))
        table.add_row(name, f"{statistics.median(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})", f"{gain:+.4f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
