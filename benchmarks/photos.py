"""Milliseconds per photograph to read a folder, against ``keras.utils.image_dataset_from_directory``.

Usage: ``python benchmarks/photos.py [PHOTOS [ROUNDS [FILES]]]``. Makes 1,500 JPEGs of 500x375 pixels, smooth random
pictures with grain, and reads them to 224x224 by Keras and by layerflow. Each contender has its own process, and they
alternate for five rounds. Keras resizes without antialiasing. layerflow has no index: it lists the folder, then checks
the SHA-256 of each file, decodes, and resizes with antialiasing. In the third row it also divides the images and writes
them into packs. Processor time counts all threads: other work on the machine changes it less.

Then 100,000 tiny files are listed, listed again without a change, and again with ten more.
"""

import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from layerflow import store
from layerflow.data import image_folder
from layerflow.settings.data import DataConfig

HEIGHT, WIDTH, SIZE, CLASSES = 375, 500, (224, 224), 5


def photograph(number: int) -> Image.Image:
    """A picture that compresses as a photograph does: four octaves of smooth colour, and grain."""
    random = np.random.default_rng(number)
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for cells, strength in ((4, 60), (16, 40), (64, 25), (128, 20)):
        noise = random.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8)
        smooth = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture += (np.asarray(smooth) / 127.5 - 1) * strength
    picture += random.normal(128, 5, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def make_photographs(tree: Path, count: int) -> int:
    """Write the photographs, in five classes; returns their bytes."""
    files = [tree / "train" / str(number % CLASSES) / f"{number}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(file, quality=92)
    return sum(file.stat().st_size for file in files)


def read_by_keras(tree: Path) -> int:
    """Go once over the dataset that Keras makes of the folder; returns the number of images."""
    import keras

    dataset = keras.utils.image_dataset_from_directory(tree / "train", image_size=SIZE, shuffle=False, verbose=False)
    return sum(len(labels) for _, labels in dataset)


def read_by_layerflow(tree: Path) -> int:
    """List the folder and read its images, which go nowhere; returns their number."""
    from layerflow.data.image_folder_source import FolderSource
    from layerflow.data.packs import Packs
    from layerflow.data.rows import Content, Row

    class Nowhere(Packs):
        """Has no image, and keeps none."""

        def add(self, content: Content, file: bytes | None = None) -> Row:
            return Row(0, 0, content.digest, content.test_place)

    _begin_anew()
    source = FolderSource(_config(tree))
    with Nowhere(tree.parent, source.shape) as nowhere:
        return sum(1 for _ in source.examples("train", nowhere))


def load_by_layerflow(tree: Path) -> int:
    """List the folder and write its images and splits; returns the number of images."""
    from layerflow.data.load import load

    _begin_anew()
    with tempfile.TemporaryDirectory(dir=tree.parent) as made:
        return sum(load(_config(tree), Path(made)).counts.values())


def _config(tree: Path) -> DataConfig:
    return DataConfig(name="folder", path=tree, image_size=f"{SIZE[0]}x{SIZE[1]}")


def _begin_anew() -> None:
    """Forget what was listed and what was read."""
    for name in ("folders", "packs"):
        shutil.rmtree(store.root() / name, ignore_errors=True)
    image_folder.forget()


def answer(requests: Connection, contender: Callable[[Path], int], tree: Path) -> None:
    """Images, seconds, and processor seconds of each pass that is asked for."""
    while requests.recv():
        began, used = time.perf_counter(), time.process_time()
        count = contender(tree)
        requests.send((count, time.perf_counter() - began, time.process_time() - used))


CONTENDERS = {
    "Keras": read_by_keras,
    "layerflow: list and read": read_by_layerflow,
    "layerflow: list, read, divide, and write": load_by_layerflow,
}


def compare(tree: Path, photos: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per photograph and processor milliseconds, by contender: an array of ``(rounds, 2)``.

    A first round, in which everything is imported, doesn't count.
    """
    processes, ends = get_context("spawn"), {}
    for name, contender in CONTENDERS.items():
        ends[name], other = Pipe()
        processes.Process(target=answer, args=(other, contender, tree), daemon=True).start()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ends}
    for _, (name, end) in itertools.product(range(rounds + 1), ends.items()):
        end.send(True)
        count, *seconds = end.recv()
        assert count == photos, f"{name} read {count} of {photos}"
        found[name].append(tuple(1000 * each / photos for each in seconds))
    for end in ends.values():
        end.send(False)
    return {name: np.array(times[1:]) for name, times in found.items()}


def make_tiny_files(tree: Path, first: int, count: int) -> None:
    """Write tiny images of different content, a thousand in a folder."""
    for number in range(first, first + count):
        file = tree / "train" / str(number % 2) / str(number // 1000) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(number.to_bytes(4), np.uint8).reshape(2, 2)
        Image.fromarray(pixels).save(file, compress_level=0)


def list_again(tree: Path, files: int) -> dict[str, float]:
    """Seconds of listing many files: for the first time, unchanged, and with ten more."""

    def seconds() -> float:
        began = time.perf_counter()
        image_folder.scan(tree)
        return time.perf_counter() - began

    make_tiny_files(tree, 0, files)
    time.sleep(3)  # files that are younger than two seconds are read again the next time
    found = {"for the first time": seconds(), "unchanged": seconds()}
    make_tiny_files(tree, files, 10)
    return {**found, "with ten new files": seconds()}


def main() -> None:
    """Measure, and print two tables."""
    photos, rounds, files = [*map(int, sys.argv[1:]), *(1500, 5, 100_000)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LAYERFLOW_STORE"] = f"{scratch}/store"
        tree = Path(scratch) / "photos"
        size = make_photographs(tree, photos)
        found = compare(tree, photos, rounds)
        again = list_again(Path(scratch) / "tiny", files)
    title = f"{photos:,} JPEGs of {WIDTH}x{HEIGHT}, {size / photos / 1000:.0f} kB on average"
    table = Table("medians, per photograph", "ms", "/ Keras", "processor ms", "/ Keras", title=title)
    keras = next(iter(found.values()))
    for name, times in found.items():
        cells = zip(np.median(times, axis=0), np.median(times / keras, axis=0), strict=True)
        table.add_row(name, *(f"{each:.2f}" for pair in cells for each in pair))
    Console(width=110).print(table)
    table = Table(f"listing {files:,} files", "seconds")
    for name, taken in again.items():
        table.add_row(name, f"{taken:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
