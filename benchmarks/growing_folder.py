"""A month of nights on a folder without `test/` that grows: each is compared, and no image moves from test to train.

Usage: ``python benchmarks/growing_folder.py [NIGHTS]``. On the digits as PNG files, with the
commands that a user types. On one night a third of the images have wrong labels, on a later one the network becomes
larger: the first must be kept out, the second published.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FIRST, EACH = 1000, 25
SMALL, LARGE = "8", "64"
COUNTS = ("both_right", "only_challenger", "only_champion", "both_wrong")


def draw(folder: Path, numbers: range) -> None:
    """Add some of the digits."""
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for number in numbers:
        save(folder, pixels[number], digits.target[number], str(number))


def save(folder: Path, pixels: np.ndarray, label: int, name: str) -> None:
    file = folder / "train" / str(label) / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def mislabel(folder: Path) -> list[Path]:
    """Add half as many images again, with noise on them and any label; return the files."""
    chance, before = np.random.default_rng(0), sorted(folder.glob("train/*/*.png"))
    for number, file in enumerate(before[::2]):
        pixels = np.asarray(Image.open(file)).astype(int) + chance.integers(-9, 10, (8, 8))
        save(folder, pixels.clip(0, 255).astype(np.uint8), int(chance.integers(10)), f"wrong-{number}")
    return sorted(folder.glob("train/*/wrong-*.png"))


def retrain(folder: Path, store: Path, hidden: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "retrain",
        "--json",
        "--data.name",
        "folder",
        "--data.path",
        str(folder),
    ]
    command += ["--model.hidden", hidden, "--gate.min_test_examples", "50"]
    environment, root = {**os.environ, "LAYERFLOW_STORE": str(store)}, Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sides(store: Path) -> dict[int, str]:
    """Whether each image of the newest data learns or tests, by its digest."""
    newest = max((store / "load_data").iterdir(), key=lambda each: each.stat().st_mtime)
    return {
        int.from_bytes(digest[:8].tobytes()): "test" if split == "test" else "learns"
        for split in ("train", "validation", "test")
        for digest in np.load(newest / f"{split}_sha256.npy")
    }


def main(nights: int) -> int:
    """Live through the nights; return how much was wrong."""
    bad, better, wrong, known = nights // 3, nights * 2 // 3, 0, dict[int, str]()
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch) / "photos", Path(scratch) / "store"
        for night in range(nights):
            draw(folder, range(FIRST + EACH * (night - 1), FIRST + EACH * night) if night else range(FIRST))
            spoiled = mislabel(folder) if night == bad else []
            made = retrain(folder, store, SMALL if night < better else LARGE)
            now, found = sides(store), made["comparison"]
            crossed = sum(known.get(digest, side) != side for digest, side in now.items())
            known |= now
            compared = found and sum(found[who] for who in COUNTS)
            print(f"night {night + 1:2}: {len(now):,} images, {made['code']}", end="")
            print(f", on {compared}, {found['new']} new, {found['difference']:+.4f}" if found else "", flush=True)
            wrong += crossed + (night > 0 and found is None and made["code"] != "kept_below_floor")
            wrong += night == bad and made["status"] == "promoted"
            wrong += night == better and made["code"] != "promoted_better"
            for file in spoiled:
                file.unlink()
    print(f"{nights} nights, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)))
