"""Images a second of ``layerflow predict --csv`` against those of the model's signature ``image_bytes`` alone.

Usage: ``python -m benchmarks.predicting [PHOTOS [ROUNDS]]``. Makes 600 JPEGs of 500x375 pixels, of which one in a
hundred is broken, and exports a small network for such photographs. The signature gets batches of the others that are
in memory already, as many at a time as there are cores; the command lists a folder, reads the files, and writes a CSV
file. They alternate for five rounds. Prints medians, and how many files the command found broken.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.photos import SIZE, make_photographs
from cli import predict
from layerflow import artifacts
from layerflow.data.load import load
from layerflow.data.threads import in_threads
from layerflow.export.saved_model import export
from layerflow.models.build import build
from layerflow.prediction.answers import Predictor
from layerflow.prediction.paths import image_files
from layerflow.records import DatasetRef, ExportRef, ModelRef, TrainedRef
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train

BATCH = 32


def make_model(tree: Path) -> tuple[Path, list[str]]:
    """Export a network for the photographs; its folder and classes."""
    config = DataConfig(name="folder", path=tree, image_size=f"{SIZE[0]}x{SIZE[1]}")
    data = artifacts.make("load_data", "photos", DatasetRef, lambda to: load(config, to))
    built = artifacts.make(
        "build_model", "photos", ModelRef, lambda to: build(ModelConfig(name="mlp", hidden=(8,)), data, 0, to)
    )
    settings = TrainingConfig(epochs=1, compile="graph")
    trained = artifacts.make("train_model", "photos", TrainedRef, lambda to: train(settings, built, data, to))
    made = artifacts.make("export_model", "photos", ExportRef, lambda to: export(trained, data, to))
    return Path(os.environ["LAYERFLOW_STORE"]) / made.saved_model, list(data.classes)


def main() -> None:
    """Measure, and print a table."""
    photos, rounds = [*map(int, sys.argv[1:]), *(600, 5)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LAYERFLOW_STORE"] = f"{scratch}/store"
        tree, learned, target = (Path(scratch) / name for name in ("photos", "learned", "answers.csv"))
        make_photographs(learned, 300)
        model, classes = make_model(learned)
        make_photographs(tree, photos)
        broken = set([*image_files([str(tree)], ())][::100])
        for path in broken:
            Path(path).write_bytes(b"no image")
        predictor = Predictor(model)
        predictor.load()
        ask = tf.saved_model.load(str(model)).signatures["image_bytes"]
        contents = [Path(path).read_bytes() for path in image_files([str(tree)], ()) if path not in broken]
        batches = [tf.constant(contents[start : start + BATCH]) for start in range(0, len(contents), BATCH)]
        named = list[int]()

        def alone() -> None:
            for _ in in_threads(lambda batch: ask(image_bytes=batch)["probabilities"].numpy(), batches, 1):
                pass

        def command() -> None:
            named.append(0)
            with predict._csv(target, classes, 3) as write:
                for answer in predictor.answers(image_files([str(tree)], ())):
                    write(answer)
                    named[-1] += bool(answer.error)

        seconds = {work.__name__: timed(work, 0) for work in (alone, command)}
        for _ in range(rounds):
            for work in (alone, command):
                seconds[work.__name__] += timed(work)
    table = Table("images a second", "median", title=f"{photos:,} JPEGs of 500x375")
    rates = {name: len(contents) / np.array(taken) for name, taken in seconds.items()}
    for name, found in rates.items():
        table.add_row(name, f"{np.median(found):.0f}")
    table.add_row("command / alone", f"{np.median(rates['command'] / rates['alone']):.2f}")
    table.add_row("broken files named, of " + str(len(broken)), str(named[-1]))
    Console(width=110).print(table)


def timed(work: Callable[[], None], rounds: int = 1) -> list[float]:
    """Seconds of each round; with none, the work is done once and not counted."""
    began = time.perf_counter()
    work()
    return [time.perf_counter() - began] if rounds else []


if __name__ == "__main__":
    main()
