"""Seconds an image and peak memory of preparing and training, from MNIST once to MNIST ten times, as a folder of PNGs.

Usage: ``python benchmarks/scale.py [FACTOR...]``. Needs MNIST (LAYERFLOW_MIRROR, or the network) and, for ten times,
4 GB of disk and 700,000 files. The copies are moved by up to two pixels. Each step runs in a process of its own, whose
peak of resident memory is read when it ends. Prints a table and draws docs/scale.png.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
#: What each step does with `config` and `key`; `figures` is what it tells. Seconds are those of the second epoch.
STEPS = {
    "list again": """
from layerflow.data import image_folder
began = time.perf_counter()
image_folder.scan(config.data.path)
figures["seconds"] = time.perf_counter() - began
""",
    "prepare": """
from layerflow.data.load import load
began = time.perf_counter()
artifacts.make("load_data", key, DatasetRef, lambda made: load(config.data, made))
figures["seconds"] = time.perf_counter() - began
""",
    "check": """
from layerflow.cards.data import write_card
from layerflow.data.validation import validate
data = artifacts.make("load_data", key, DatasetRef, None)
def check(folder):
    report = validate(config.checks, data, None)
    write_card(report, data, folder)
    return report
began = time.perf_counter()
artifacts.make("validate_data", key, DataReport, check)
figures["seconds"] = time.perf_counter() - began
""",
    "resident": """
from layerflow import devices
from layerflow.models.build import build
from layerflow.training.train import train
devices.set_up(config.devices_for_model)
data = artifacts.make("load_data", key, DatasetRef, None)
model = artifacts.make("build_model", key, ModelRef, lambda made: build(config.model, data, 0, made))
settings = config.training.model_copy(update={"epochs": 2, "memory_budget": 100_000})
trained = artifacts.make("train_model", key + "r", TrainedRef, lambda made: train(settings, model, data, made))
figures["seconds"] = trained.history[-1].seconds
""",
}
STEPS["streamed"] = (
    STEPS["resident"].replace("100_000}", '1, "monitor": "loss"}').replace('key + "r"', 'key + "s"')
)  # with another setting, for the trained weights would be found finished otherwise
ORDER = ("prepare", "list again", "check", "resident", "streamed")
RUN = """
import json, sys, time
from layerflow import artifacts
from layerflow.config import RetrainConfig
from layerflow.records import DatasetRef, DataReport, ModelRef, TrainedRef
config = RetrainConfig.model_validate({"data": {"name": "folder", "path": sys.argv[1]}})
key, figures = sys.argv[2], {}
%s
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
figures["gib"] = int(status["VmHWM"].split()[0]) / 2**20
print(json.dumps(figures))
"""


def mnist() -> Any:
    """MNIST through layerflow: images and labels of train and test."""
    from layerflow import artifacts
    from layerflow.data.arrays import images_and_labels
    from layerflow.data.load import load
    from layerflow.records import DatasetRef
    from layerflow.settings.data import DataConfig

    data = artifacts.make("load_data", "mnist", DatasetRef, lambda made: load(DataConfig(name="mnist"), made))
    parts = {split: [np.array(each) for each in images_and_labels(data, split)] for split in data.counts}
    learned = [np.concatenate(both) for both in zip(parts["train"], parts["validation"], strict=True)]
    return {"train": learned, "test": parts["test"]}


def write(tree: Path, split: str, copy: int, images: np.ndarray, labels: np.ndarray) -> None:
    """One copy of a split as PNG files, each image moved by up to two pixels."""
    moves = np.random.default_rng([copy, len(images)]).integers(-2, 3, (len(images), 2)) * (copy > 0)
    for number, (image, label, move) in enumerate(zip(images, labels, moves, strict=True)):
        file = tree / split / str(label) / f"{copy}-{number}.png"
        Image.fromarray(np.roll(image[..., 0], move, (0, 1))).save(file, compress_level=1)


def make_tree(tree: Path, factor: int, splits: Any) -> int:
    """MNIST ``factor`` times as files; returns their number."""
    for split in splits:
        for label in range(10):
            (tree / split / str(label)).mkdir(parents=True)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        jobs = [
            processes.submit(write, tree, split, copy, *arrays)
            for copy in range(factor)
            for split, arrays in splits.items()
        ]
        for job in jobs:
            job.result()
    return factor * sum(len(labels) for _, labels in splits.values())


def run(step: str, tree: Path) -> dict[str, float]:
    """Figures of one step, in a process of its own."""
    command = [sys.executable, "-c", RUN % STEPS[step], str(tree), tree.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def draw(found: dict[int, dict[str, dict[str, float]]], images: dict[int, int]) -> None:
    """Microseconds an image and peak memory by size, to docs/scale.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    times, memory = figure.subplots(1, 2)
    sizes = [images[factor] / 1000 for factor in found]
    for step in ("prepare", "check", "resident", "streamed"):
        times.plot(sizes, [1e6 * found[f][step]["seconds"] / images[f] for f in found], "o-", label=step)
        memory.plot(sizes, [found[f][step]["gib"] for f in found], "o-", label=step)
    times.set(xlabel="thousand images", ylabel="microseconds an image", xscale="log", yscale="log")
    memory.set(xlabel="thousand images", ylabel="peak memory, GiB", xscale="log", ylim=(0, None))
    for axis in (times, memory):
        axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
        axis.minorticks_off()
    memory.axhline(2, color="grey", linestyle=":")
    times.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "scale.png", dpi=110)


def main() -> None:
    """Measure every size, print the table, draw the picture."""
    factors = [int(each) for each in sys.argv[1:]] or [1, 3, 10]
    splits, found, images = mnist(), {}, {}
    table = Table("MNIST", "images", "step", "seconds", "microseconds an image", "peak GiB")
    with tempfile.TemporaryDirectory() as scratch:
        for factor in factors:
            tree = Path(scratch) / f"times{factor}"
            images[factor] = make_tree(tree, factor, splits)
            found[factor] = {step: run(step, tree) for step in ORDER}
            for step, figures in found[factor].items():
                each = 1e6 * figures["seconds"] / images[factor]
                cells = f"{images[factor]:,}", step, f"{figures['seconds']:.1f}", f"{each:.1f}", f"{figures['gib']:.2f}"
                table.add_row(f"{factor}x", *cells)
            print(f"{factor}x done", file=sys.stderr)
    Console(width=110).print(table)
    draw(found, images)


if __name__ == "__main__":
    main()
