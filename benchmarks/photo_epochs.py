"""Seconds an epoch of MobileNetV3Small on photographs: ours and Keras' ``fit``, alternated in one run.

Usage: ``python benchmarks/photo_epochs.py [ROUNDS]``. Images of 96x96 and 224x224 pixels stay in memory for all
contenders. Each has a process of its own.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from photos import photograph
from training import measure, show

BATCH, TEST = 32, 32
#: Images of a size: an epoch takes seconds.
IMAGES = {96: 640, 224: 128}


def main() -> None:
    """Measure both sizes, and print a table of each."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as scratch:
        for side, images in IMAGES.items():
            x = np.stack([np.asarray(photograph(number).resize((side, side))) for number in range(images + TEST)])
            y = np.arange(images + TEST, dtype=np.int32) % 10
            file = Path(scratch) / "photographs.npz"
            np.savez(file, x=x[:images], y=y[:images], test_x=x[images:], test_y=y[images:])
            contenders = ["ours", "script", "best_flags", "best_flags_graph"]
            results = measure("mobilenet", BATCH, images, contenders, rounds, file)
            show(f"MobileNetV3Small, {side}x{side}", BATCH, images, rounds, results)


if __name__ == "__main__":
    main()
