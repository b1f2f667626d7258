"""Streaming takes memory for its windows alone. Usage: ``… FILE``, which it writes first."""

import sys
from pathlib import Path

import keras
import numpy as np

from layerflow.models.mlp import Mlp
from layerflow.training import epoch_windows
from layerflow.training.engine import Engine

images = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.uint8, shape=(100_000, 64, 64, 1))
for start in range(0, 100_000, 10_000):
    images[start : start + 10_000] = np.random.default_rng(start).integers(0, 256, (10_000, 64, 64, 1), np.uint8)
    epoch_windows.give_back(images)
network = Mlp(hidden=(8,), classes=10)
network.build((None, 64, 64, 1))
optimizer = keras.optimizers.Adam()
optimizer.build(network.trainable_variables)
epoch_windows.WINDOW_BYTES = 16 * 2**20
images = np.load(sys.argv[1], mmap_mode="r")
engine = Engine(network, optimizer, images, np.zeros(100_000, np.int32), 256, 0, streamed=True)


def taken():  # not ru_maxrss, which the writing above has raised
    return (
        int(
            next(
                line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
            ).split()[1]
        )
        / 1024
    )


engine.warm_up()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, without the compiler's
before = taken()
while int(engine.position) < 128:  # eight windows, from all over the file
    assert not engine.run_chunk(1)
print("grew by", taken() - before)
assert taken() - before < 200
