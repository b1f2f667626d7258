"""Seconds an epoch: ours, Keras' ways, PyTorch, JAX and the arithmetic's limit, alternated in one run.

Usage: ``python benchmarks/training.py [ROUNDS]``. Needs MNIST (LAYERFLOW_MIRROR, or the network); PyTorch and JAX
take part where they are installed. Prints a table a task and draws docs/training-speed.png.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from layerflow import artifacts
from layerflow.data.arrays import images_and_labels
from layerflow.data.load import load
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "ours": "layerflow",
    "script": "tutorial's script: compile, fit",
    "tf_data": "TFDS idiom: tf.data, fit",
    "best_flags": "fit at its best flags",
    "best_flags_graph": "fit at its best flags, without XLA",
    "torch": "PyTorch eager, resident",
    "jax": "JAX jit + scan",
    "limit": "limit: products + Adam alone",
}
#: Task, batch size, training images, contenders.
TASKS = [
    ("mlp", 32, 60_000, ["ours", "script", "tf_data", "best_flags", "torch", "jax", "limit"]),
    ("mlp", 128, 60_000, ["ours", "script", "tf_data", "best_flags", "torch", "jax", "limit"]),
    ("cnn", 128, 1_920, ["ours", "script", "best_flags", "torch", "limit"]),
]


def arrays(folder: Path) -> Path:
    """MNIST's 60,000 and 10,000 images as one file for all contenders."""
    data = artifacts.make("load_data", "benchmark", DatasetRef, lambda made: load(DataConfig(name="mnist"), made))
    parts = [images_and_labels(data, split) for split in ("train", "validation")]
    x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
    test_x, test_y = images_and_labels(data, "test")
    np.savez(folder / "mnist.npz", x=x, y=y, test_x=test_x, test_y=test_y)
    return folder / "mnist.npz"


def measure(task: str, batch: int, images: int, contenders: list[str], rounds: int, file: Path) -> dict[str, Any]:
    """Run the contenders in processes of their own, one epoch each in turn, and return seconds and accuracy."""
    small = file.with_name(f"{images}.npz")
    with np.load(file) as whole:
        np.savez(small, **{**whole, "x": whole["x"][:images], "y": whole["y"][:images]})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    processes = {}
    for name in contenders:
        if name in ("torch", "jax") and importlib.util.find_spec(name) is None:
            continue
        processes[name] = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "contenders.py"), name, task, str(batch), str(small)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        answer(processes[name])
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            seconds[name].append(answer(process)["seconds"])
    accuracy = {}
    for name, process in processes.items():
        process.stdin.close()
        accuracy[name] = answer(process)["accuracy"]
        process.wait()
    return {name: (statistics.median(times), min(times), max(times), accuracy[name]) for name, times in seconds.items()}


def answer(process: Any) -> dict[str, Any]:
    """The next JSON line of a contender."""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"a contender ended with status {process.wait()}: {process.args}")


def show(task: str, batch: int, images: int, rounds: int, results: dict[str, Any]) -> None:
    """A table, fastest first: medians and ranges, and how many times as long as ours and the limit each takes."""
    table = Table(title=f"{task}, batch {batch}, {images:,} images: seconds an epoch, median of {rounds} (min to max)")
    for column in ("", "seconds", "of ours", "of the limit", f"accuracy after {rounds + 1} epochs"):
        table.add_column(column, justify="left" if not column else "right")
    mine, floor = results["ours"][0], results.get("limit", [None])[0]
    for name, (median, low, high, accuracy) in sorted(results.items(), key=lambda item: item[1][0]):
        table.add_row(
            NAMES[name],
            f"{median:.3f} ({low:.3f} to {high:.3f})",
            f"{median / mine:.2f}",
            f"{median / floor:.2f}" if floor else "",
            f"{accuracy:.4f}" if accuracy is not None and images == 60_000 else "",
        )
    Console(width=120).print(table)


def draw(found: list[tuple[str, dict[str, Any]]]) -> None:
    """Bars of the medians to docs/training-speed.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(13, 3.6), layout="constrained")
    for axis, (title, results) in zip(axes, found, strict=True):
        order = sorted(results, key=lambda name: -results[name][0])
        medians = [results[name][0] for name in order]
        axis.barh(
            [NAMES[name] for name in order], medians, color=["#c0392b" if n == "ours" else "#7f8c8d" for n in order]
        )
        for place, median in enumerate(medians):
            axis.text(median, place, f" {median:.2f}", va="center", fontsize=8)
        axis.set(title=title, xlabel="seconds an epoch", xlim=(0, max(medians) * 1.25))
        axis.tick_params(labelsize=8)
    figure.suptitle(f"{os.cpu_count()} cores of {processor()}", fontsize=9)
    figure.savefig(ROOT / "docs" / "training-speed.png", dpi=110)


def processor() -> str:
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "this machine")


def main() -> None:
    """Measure every task, print its table, draw the picture."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        file = arrays(Path(scratch))
        for task, batch, images, contenders in TASKS:
            results = measure(task, batch, images, contenders, rounds, file)
            show(task, batch, images, rounds, results)
            found.append((f"{task}, batch {batch}", results))
    draw(found)


if __name__ == "__main__":
    main()
