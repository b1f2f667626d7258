"""How large the store is over a year of nights in which the data change each day.

Usage: ``python benchmarks/year.py [NIGHTS]``. A folder of images grows by a few images a night. Each night trains,
proves and publishes or keeps a model, by the steps of the flow, in a process of its own. Each week a collection with
its defaults follows. A day passes between two nights: the times of all files in the store move back. Each line gives
the size of the store, and what it would have been without collections.
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from gc_drill import forked
from growing_folder import draw

import tasks
from layerflow.collection.collect import collect
from layerflow.collection.items import items, published
from layerflow.config import RetrainConfig
from layerflow.export import process
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.settings.gc import GcConfig
from tasks.caching import make

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import forked as warm

FIRST, EACH, DAY_NS = 600, 3, 24 * 3600 * 10**9


def night(folder: Path) -> None:
    """One run, by the steps of the flow."""
    settings = {
        "data": {"name": "folder", "path": str(folder)},
        "training": {"epochs": 1, "compile": "graph"},
        "gate": {"baseline": "none", "min_class_recall": 0, "min_test_examples": 50},
    }
    config = RetrainConfig.model_validate(settings)
    devices = config.devices_for_model
    data = make(tasks.load_data, config.data, devices)
    checked = make(tasks.validate_data, config.checks, data, None)
    model = make(tasks.build_model, config.model, data, 0, devices, None)
    trained = make(tasks.train_model, config.training, config.augment, config.finetune, model, data, devices)
    evaluation = make(tasks.evaluate_model, config.export, trained, data, devices)
    export = make(tasks.export_model, trained, evaluation.serving, data, devices)
    proved = make(tasks.verify_export, export, evaluation, data, config.data)
    promote(config, Challenger(data, checked, model, trained, evaluation, export, proved), "night")


def a_day_passes(store: Path) -> None:
    for path in (store, *store.rglob("*")):
        status = path.lstat()
        os.utime(path, ns=(status.st_atime_ns - DAY_NS, status.st_mtime_ns - DAY_NS))


def size() -> int:
    return sum(each.size for each in [*items(), *published()])


if __name__ == "__main__":
    nights = int(sys.argv[1]) if len(sys.argv) > 1 else 365
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch, "images"), Path(scratch, "store")
        os.environ["LAYERFLOW_STORE"] = str(store)
        draw(folder, range(FIRST))
        # Each night, and the process that verifies, is a fork of one that has imported TensorFlow and not begun to use
        # it: 730 imports would take an hour.
        importlib.import_module("tensorflow")
        process.subprocess = warm  # type: ignore[assignment]
        warm.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        largest, freed = 0, 0
        for number in range(1, nights + 1):
            draw(folder, np.arange(FIRST + (number - 1) * EACH, FIRST + number * EACH) % 1797)
            if os.waitpid(forked(lambda: night(folder)), 0)[1]:
                sys.exit(f"night {number} failed")
            largest = max(largest, size())
            if number % 7 == 0:
                freed += collect(GcConfig()).freed
            if number % 28 == 0 or number == nights:
                print(f"night {number:3}: {size() / 1e6:6.1f} MB, {(size() + freed) / 1e6:7.1f} MB without", flush=True)
            a_day_passes(store)
        print(f"never more than {largest / 1e6:.1f} MB")
