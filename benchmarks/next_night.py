"""What preparing a folder costs a night later, with ten images more: seconds and bytes against the first night.

Usage: ``python benchmarks/next_night.py [IMAGES [ADDED [ROUNDS]]]``. Makes 20,000 JPEGs of 160x120 pixels and prepares
them at 96x96 in a new store, adds ten, and prepares them again; then once more without a change. Each night is a
process of its own, whose imports don't count. Three rounds, each with a store of its own. The files stay in the
system's cache, so that reading them costs less than on a real first night.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 5
PREPARE = """
import sys, time
from layerflow import artifacts
from layerflow.data.load import load
from layerflow.data.source_key import key_content
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig

config, began = DataConfig(name="folder", path=sys.argv[1], image_size="96x96"), time.perf_counter()
key = key_content(config)["images"][:32]
artifacts.make("load_data", key, DatasetRef, lambda folder: load(config, folder))
print(time.perf_counter() - began)
"""


def add(tree: Path, first: int, count: int) -> None:
    """Write smooth random pictures in five classes."""
    for number in range(first, first + count):
        noise = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        file = tree / "train" / str(number % CLASSES) / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(file, quality=90)


def night(tree: Path, store: Path) -> tuple[float, int]:
    """Prepare the folder; returns seconds, and the bytes by which the store grew."""
    before = size_of(store)
    environment = {**os.environ, "LAYERFLOW_STORE": str(store), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PREPARE, str(tree)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout), size_of(store) - before


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measure, and print medians."""
    images, added, rounds = [*map(int, sys.argv[1:]), *(20_000, 10, 3)[len(sys.argv) - 1 :]]
    found: list[list[tuple[float, int]]] = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "pets"
        add(tree, 0, images)
        for number in range(rounds):
            store = Path(scratch) / f"store-{number}"
            nights = [night(tree, store)]
            add(tree, images + number * added, added)
            found.append([*nights, night(tree, store), night(tree, store)])
    seconds, sizes = np.median(np.array(found), axis=0).T
    table = Table("night", "seconds", "/ first", "MB", "/ first", title=f"{images:,} JPEGs at 96x96")
    for name, took, size in zip(("first", f"{added} images more", "unchanged"), seconds, sizes, strict=True):
        table.add_row(name, f"{took:.2f}", f"{took / seconds[0]:.3f}", f"{size / 1e6:.2f}", f"{size / sizes[0]:.4f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
