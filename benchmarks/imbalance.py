"""What class weights and augmentation do for the smallest class of an imbalanced dataset, over several seeds.

Usage: ``python benchmarks/imbalance.py [SEEDS]``. Needs Fashion-MNIST (LAYERFLOW_MIRROR, or the network). Learns from
700 shirts, 300 T-shirts, 150 pullovers and 50 coats, which look alike; each seed draws others. The test images are a
thousand of each.
"""

import statistics
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from subsets import Splits, write

from layerflow import artifacts, devices
from layerflow.data.arrays import images_and_labels
from layerflow.data.load import load
from layerflow.evaluation.evaluate import evaluate
from layerflow.models.build import build
from layerflow.records import DatasetRef, Evaluation, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train

#: Class of Fashion-MNIST, and how many images of it there are to learn from.
COUNTS = {6: 700, 0: 300, 2: 150, 4: 50}
BALANCED = {"class_weight": "balanced"}
AUGMENTED = {
    "layers": [
        "RandomFlip",
        {"class_name": "RandomTranslation", "config": {"height_factor": 0.1, "width_factor": 0.1}},
    ]
}
WAYS: dict[str, tuple[dict[str, str], dict[str, list[object]]]] = {
    "as they are": ({}, {}),
    "class_weight: balanced": (BALANCED, {}),
    "class_weight: balanced, augment.layers": (BALANCED, AUGMENTED),
}
LENGTH = {"epochs": 20, "batch_size": 32, "patience": 100}


def imbalanced(data: DatasetRef, seed: int, folder: Path) -> DatasetRef:
    """As many images of each class as ``COUNTS`` says, a fifth of them to validate, and all of its test images."""
    chance, parts = np.random.default_rng(seed), dict[str, list[tuple[np.ndarray, np.ndarray]]]()
    for number, (label, count) in enumerate(COUNTS.items()):
        images, labels = images_and_labels(data, "train")
        rows = chance.choice(np.flatnonzero(labels == label), count, replace=False)
        test_images, test_labels = images_and_labels(data, "test")
        of_split = {
            "train": images[rows[count // 5 :]],
            "validation": images[rows[: count // 5]],
            "test": test_images[test_labels == label],
        }
        for split, found in of_split.items():
            parts.setdefault(split, []).append((found, np.full(len(found), number, np.int32)))
    splits: Splits = {
        split: (np.concatenate([images for images, _ in found]), np.concatenate([labels for _, labels in found]))
        for split, found in parts.items()
    }
    return write(data, tuple(data.classes[label] for label in COUNTS), splits, folder)


def main() -> None:
    """Train with every seed, and print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    devices.set_up(DevicesConfig())
    all_clothes = artifacts.make(
        "load_data", "clothes", DatasetRef, lambda folder: load(DataConfig(name="fashion_mnist"), folder)
    )
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        data = artifacts.make(
            "load_data",
            f"imbalanced-{seed}",
            DatasetRef,
            lambda folder, seed=seed: imbalanced(all_clothes, seed, folder),
        )
        model = artifacts.make(
            "build_model",
            f"imbalanced-{seed}",
            ModelRef,
            lambda folder, data=data, seed=seed: build(ModelConfig(name="cnn", width=8), data, seed, folder),
        )
        for number, (way, (training, augment)) in enumerate(WAYS.items()):
            config = TrainingConfig.model_validate({**LENGTH, **training, "seed": seed})
            how = AugmentConfig.model_validate(augment)
            key = f"imbalanced-{seed}-{number}"
            trained = artifacts.make(
                "train_model",
                key,
                TrainedRef,
                lambda folder, config=config, model=model, data=data, how=how: train(
                    config, model, data, folder, augment=how
                ),
            )
            scored = artifacts.make(
                "evaluate_model",
                key,
                Evaluation,
                lambda folder, trained=trained, data=data: evaluate(trained, data, folder),
            )
            found[way].append((scored.per_class[-1].recall, scored.balanced_accuracy))
            print(f"{way}, seed {seed}: recall of the smallest class {found[way][-1][0]:.3f}", flush=True)
    table = Table("", "recall of the smallest class", "balanced accuracy", title=f"median of {seeds} seeds")
    for way, scores in found.items():
        recalls, accuracies = zip(*scores, strict=True)
        table.add_row(way, f"{statistics.median(recalls):.3f}", f"{statistics.median(accuracies):.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
