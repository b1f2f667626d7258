"""How long a collection takes over many artifacts.

Usage: ``python benchmarks/collecting.py [FOLDERS]``. The folders have three files each; one in ten is needed by a
receipt of a model, and all are old. The first line is of a dry run, which only looks; the second of a collection; the
third of one more, which finds nothing to do.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from layerflow.collection.collect import collect
from layerflow.settings.gc import GcConfig


def fill(store: Path, folders: int) -> None:
    """Make the folders, and a version of a model for every thousand of them that are needed."""
    for number in range(folders):
        folder = store / "train_model" / f"{number:032x}"
        folder.mkdir(parents=True)
        for name in ("model.keras", "record.json", "card.md"):
            (folder / name).write_bytes(b"x")
        os.utime(folder, (0, 0))
    for version in range(folders // 10):
        receipt = store / "models" / f"m{version // 1000}" / f"{version + 1}" / "assets.extra" / "receipt.json"
        receipt.parent.mkdir(parents=True)
        receipt.write_text(json.dumps({"trained": {"folder": f"train_model/{version:032x}"}}))


if __name__ == "__main__":
    folders = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LAYERFLOW_STORE"] = scratch
        fill(Path(scratch), folders)
        for dry_run in (True, False, False):
            begun = time.monotonic()
            done = collect(GcConfig(), dry_run=dry_run)
            seconds, went = time.monotonic() - begun, "would go" if dry_run else "gone"
            print(f"{seconds:6.1f} s: {done.items:,} items, {done.removed:,} {went}", flush=True)
