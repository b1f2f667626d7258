"""What the flow costs over a plain script that calls the same functions: cold, warm and cached.

Usage: ``python benchmarks/overhead.py [ROUNDS]``. Prints medians in seconds, each measured in processes of their own.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

PLAIN = """
from layerflow import devices
from layerflow import artifacts
from layerflow.models.build import build
from layerflow.training.train import train
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import process, saved_model, verification
from layerflow.data import validation
from layerflow.config import RetrainConfig
from layerflow.data.load import load
from layerflow.registry.receipt import Challenger
from layerflow.registry.promotion import promote
from layerflow.records import *
c = RetrainConfig()
devices.set_up(c.devices_for_model)
verifier = process.Verifier()
verifier.start()
d = artifacts.make("d", "k", DatasetRef, lambda f: load(c.data, f))
i = artifacts.make("i", "k", DataReport, lambda f: validation.validate(c.checks, d, None))
m = artifacts.make("m", "k", ModelRef, lambda f: build(c.model, d, 0, f))
t = artifacts.make("t", "k", TrainedRef, lambda f: train(c.training, m, d, f))
e = artifacts.make("e", "k", Evaluation, lambda f: evaluate(t, d, f))
x = artifacts.make("x", "k", ExportRef, lambda f: saved_model.export(t, d, f))
v = artifacts.make("v", "k", Verification, lambda f: verification.verify(x, e, d, verifier))
promote(c, Challenger(d, i, m, t, e, x, v), "plain", verifier=verifier)
"""

#: With no server configured, Prefect's own client starts its embedded one, and ends it with the process.
BARE_SERVER = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.hello()
"""


def seconds(command: list[str], store: Path, home: Path) -> float:
    """Wall time of a command with this store and this Prefect home, and no server configured."""
    environment = {**os.environ, "LAYERFLOW_STORE": str(store), "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Alternate the parts of a start-up, the plain script, the flow on a new database and an old one, and its rerun."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    plain, flow = [sys.executable, "-c", PLAIN], [str(Path(sys.executable).with_name("layerflow")), "retrain"]
    start = [sys.executable, "-c", "import tensorflow"]
    times: dict[str, list[float]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            home, store = Path(scratch) / "prefect", Path(scratch) / "store"
            for name, command, where in (
                ("import tensorflow, alone", start, store),
                ("plain script", plain, store / "plain"),
                ("flow, new Prefect database", flow, store / "cold"),
                ("Prefect's embedded server, alone", [sys.executable, "-c", BARE_SERVER], store),
                ("flow", flow, store / "warm"),
                ("flow again: all cached", flow, store / "warm"),
            ):
                times.setdefault(name, []).append(seconds(command, where, home))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    table = Table("", "seconds", "of the plain script", title=f"digits, wall time, median of {rounds} (min to max)")
    base = statistics.median(times["plain script"])
    for name, found in times.items():
        median = statistics.median(found)
        table.add_row(name, f"{median:.1f} ({min(found):.1f} to {max(found):.1f})", f"{median / base:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
