"""What a temperature and a threshold are worth on MNIST and Fashion-MNIST, and whether the guarantee holds.

Usage: ``python benchmarks/calibration.py [SEEDS] [DIVISIONS]``. Needs both datasets (LAYERFLOW_MIRROR, or the network).
Temperature and threshold are chosen as a run chooses them. The first table is of whole runs: by the validation images,
which also chose the best epoch, and scored on the test images. The second shows the guarantee: the test images, which
nothing has learned from, are divided at random into 1,000 that choose and the others, which are scored, many times.
"""

import statistics
import sys
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from layerflow import artifacts, devices, store
from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.data.load import load
from layerflow.evaluation.confidence import abstention_on, calibrated_on, serving_of
from layerflow.models.build import build
from layerflow.models.networks import load_model
from layerflow.models.predict import make_predictor, uses_xla
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.export import AbstainConfig, ExportConfig
from layerflow.training.train import train

ERRORS = (0.05, 0.02, 0.01)
#: What is trained and tested on. The third is tested on training images that were held back: they are like those that
#: choose, and the test images of Fashion-MNIST are harder.
DATA: dict[str, dict[str, Any]] = {
    "mnist": {"name": "mnist"},
    "fashion_mnist": {"name": "fashion_mnist"},
    "fashion_mnist, held back": {
        "name": "fashion_mnist",
        "splits": {"train": "train[:80%]", "validation": "train[80%:85%]", "test": "train[85%:]"},
    },
}
#: Long enough, and without dropout, for a network that is too sure of itself.
RECIPE: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [128]},
    "training": {"epochs": 10, "batch_size": 128, "learning_rate": 2e-3, "patience": 100, "monitor": "val_accuracy"},
}
#: Images that choose, of each division of the test images.
CHOOSE = 1000


class Answers(NamedTuple):
    """A trained network's logits and the labels, by split."""

    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def answers(name: str, seed: int) -> Answers:
    """Train on a dataset, and answer the images that training did not learn from."""
    settings = {**RECIPE, "data": DATA[name], "training": {**RECIPE["training"], "seed": seed}}
    config = RetrainConfig.model_validate(settings)
    devices.set_up(config.devices_for_model)
    place = name.replace(", ", "-").replace(" ", "-")
    key = f"calibration-{place}-{seed}"
    data = artifacts.make("load_data", place, DatasetRef, lambda folder: load(config.data, folder))
    model = artifacts.make("build_model", key, ModelRef, lambda folder: build(config.model, data, seed, folder))
    trained = artifacts.make("train_model", key, TrainedRef, lambda folder: train(config.training, model, data, folder))
    network = load_model(trained.model, store.path(trained.keras))
    predict = make_predictor(network, uses_xla(network, data.image_shape, "auto"))
    splits = (images_and_labels(data, split) for split in ("validation", "test"))
    return Answers(*((predict(images), np.asarray(labels)) for images, labels in splits))


def config_of(error: float) -> ExportConfig:
    return ExportConfig(calibrate="temperature", abstain=AbstainConfig(error=error))


def whole_runs(found: dict[str, list[Answers]]) -> None:
    """Print what the validation images give, on the test images: medians over the seeds."""
    scores = Table("", "accuracy", "T", "ECE before", "after", "log loss before", "after", title="temperature")
    shares = Table("", "error asked", "accepted", "wrong, of those", "accepted and wrong (largest)", title="threshold")
    for name, runs in found.items():
        served = [serving_of(config_of(0.01), *run.validation) for run in runs]
        worth = [
            calibrated_on(*run.test, each.temperature, len(run.validation[1]))
            for run, each in zip(runs, served, strict=True)
        ]
        accuracy = statistics.median(float((run.test[0].argmax(-1) == run.test[1]).mean()) for run in runs)
        temperature = statistics.median(each.temperature for each in served)
        figures = ("ece_before", "ece_after", "loss_before", "loss_after")
        medians = (statistics.median(getattr(each, figure) for each in worth) for figure in figures)
        scores.add_row(name, f"{accuracy:.4f}", f"{temperature:.2f}", *(f"{each:.4f}" for each in medians))
        for error in ERRORS:
            of_runs = [
                abstention_on(*run.test, serving_of(config_of(error), *run.validation), error, len(run.validation[1]))
                for run in runs
            ]
            coverage = statistics.median(each.coverage for each in of_runs)
            wrong = statistics.median(each.error for each in of_runs)
            both = [each.wrong for each in of_runs]
            cells = f"{coverage:.3f}", f"{wrong:.4f}", f"{statistics.median(both):.4f} ({max(both):.4f})"
            shares.add_row(name, f"{error}", *cells)
    console = Console(width=120)
    console.print(scores)
    console.print(shares)


def divisions(found: dict[str, list[Answers]], times: int) -> bool:
    """Print how often an image is accepted and wrong, over random divisions; return whether it is as promised."""
    title = f"{times} divisions of the test images of each seed, {CHOOSE:,} of them choose"
    table, kept = Table("", "error asked", "accepted", "accepted and wrong", "standard error", title=title), True
    for name, runs in found.items():
        for error in ERRORS:
            chance, coverage, wrong = np.random.default_rng(0), [], []
            for logits, labels in (run.test for run in runs):
                for _ in range(times):
                    order = chance.permutation(len(labels))
                    some, others = order[:CHOOSE], order[CHOOSE:]
                    serving = serving_of(config_of(error), logits[some], labels[some])
                    scored = abstention_on(logits[others], labels[others], serving, error, CHOOSE)
                    coverage.append(scored.coverage)
                    wrong.append(scored.wrong)
            mean, noise = float(np.mean(wrong)), float(np.std(wrong) / np.sqrt(len(wrong)))
            table.add_row(name, f"{error}", f"{np.mean(coverage):.3f}", f"{mean:.4f}", f"{noise:.4f}")
            kept &= mean <= error + 2 * noise
    Console(width=120).print(table)
    return kept


def main(seeds: int, times: int) -> None:
    """Train, and print the tables; the status is 1 if the guarantee does not hold."""
    found: dict[str, list[Answers]] = {}
    for name in DATA:
        for seed in range(seeds):
            found.setdefault(name, []).append(answers(name, seed))
            print(f"{name}, seed {seed}: trained", flush=True)
    whole_runs(found)
    sys.exit(not divisions(found, times))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, int(sys.argv[2]) if len(sys.argv) > 2 else 200)
