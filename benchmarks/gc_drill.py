"""Kill `layerflow gc` at random moments beside runs, and see that nothing is lost which a model or a run needs.

Usage: ``python benchmarks/gc_drill.py [COLLECTIONS] [SEED]``. On the digits, in a store of its own. One run follows
the other, each of another model, and every fourth is killed too. Meanwhile collections that keep no day and one run
start one after the other; every tenth ends by itself, the others are killed at a random moment. After each, every
published version and all that its receipt names must be as they were written. No run may fail. In the end one whole
collection must leave what is needed, and nothing else.
"""

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import tasks
from layerflow import artifacts, store
from layerflow.collection.collect import collect
from layerflow.collection.items import STEPS, items
from layerflow.config import RetrainConfig
from layerflow.export import process
from layerflow.parts import parts_of
from layerflow.registry import layout, versions
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.settings.gc import GcConfig
from tasks.caching import make

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import forked as warm

KEEP = GcConfig(keep_days=0, keep_runs=1)
NAME = "drill"


def run(number: int) -> None:
    """Train and publish a model of its own; what it made must be there to the end."""
    settings = {
        "training": {"epochs": 1, "seed": number, "compile": "graph"},
        "gate": {"force": "a drill", "baseline": "none", "min_class_recall": 0},
        "registry": {"name": NAME, "keep": 2},
    }
    config = RetrainConfig.model_validate(settings)
    devices = config.devices_for_model
    data = make(tasks.load_data, config.data, devices)
    checked = make(tasks.validate_data, config.checks, data, None)
    model = make(tasks.build_model, config.model, data, number, devices, None)
    trained = make(tasks.train_model, config.training, config.augment, config.finetune, model, data, devices)
    evaluation = make(tasks.evaluate_model, config.export, trained, data, devices)
    export = make(tasks.export_model, trained, evaluation.serving, data, devices)
    proved = make(tasks.verify_export, export, evaluation, data, config.data)
    made = promote(config, Challenger(data, checked, model, trained, evaluation, export, proved), f"run {number}")
    assert made.status == "promoted", made
    for record in (data, checked, model, trained, evaluation, export, proved):
        artifacts.check_record(record)


def check() -> None:
    """Every version, and all that its receipt names, is as it was written, unless the run has pruned it meanwhile."""
    for number in versions.numbers(NAME):
        try:
            assert (damage := versions.damage(NAME, number)) is None, f"version {number}: {damage}"
            receipt = json.loads((layout.home(NAME) / str(number) / layout.RECEIPT).read_text())
            for part in receipt.values():
                if isinstance(part, dict) and "folder" in part:
                    artifacts.check(store.path(part["folder"]))
        except Exception:
            if number in versions.numbers(NAME):
                raise


def forked(work: Callable[[], object]) -> int:
    """Start a process for that work; return its ID. TensorFlow is imported here, and nothing of it has run."""
    if process := os.fork():
        return process
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)


def ended(process: int) -> int | None:
    """How a process ended, as `waitpid` says it; nothing while it goes on."""
    found, status = os.waitpid(process, os.WNOHANG)
    return status if found else None


def drill(collections: int, seed: int) -> int:
    """Start so many collections; return how many things were wrong."""
    chance, wrong, removed, runs, seconds = Random(seed), 0, 0, 0, [0.05]
    running, doomed = 0, 0.0
    for number in range(1, collections + 1):
        if running and doomed and time.monotonic() > doomed:
            os.kill(running, signal.SIGKILL)
        if not running or (status := ended(running)) is not None:
            wrong += bool(running and status and not doomed)
            runs += 1
            running = forked(lambda seed=runs: run(seed))
            doomed = time.monotonic() + chance.uniform(0, 10) if runs % 4 == 0 else 0.0
        before, begun = sum(1 for _ in items()), time.monotonic()
        collector = forked(lambda: collect(KEEP))
        if number % 10:
            time.sleep(chance.uniform(0, 1.2 * statistics.median(seconds)))
            os.kill(collector, signal.SIGKILL)
            os.waitpid(collector, 0)
        else:
            wrong += os.waitpid(collector, 0)[1] != 0
            seconds.append(time.monotonic() - begun)
        removed += max(0, before - sum(1 for _ in items()))
        wrong += os.waitpid(forked(check), 0)[1] != 0
        if number % 50 == 0 or number == collections:
            print(f"{number} collections, {runs} runs, {removed} things removed, {wrong} wrong", flush=True)
        time.sleep(chance.uniform(0, 0.6))  # the run goes on
    wrong += bool(os.waitpid(running, 0)[1] and not doomed)
    return wrong + what_is_left()


def what_is_left() -> int:
    """Whether a whole collection leaves what is needed and nothing else, and a second one finds nothing to do."""
    wrong = os.waitpid(forked(lambda: collect(KEEP)), 0)[1] != 0
    wrong += os.waitpid(forked(check), 0)[1] != 0
    left = {each.path for each in items() if each.kind in STEPS}
    needed = set[str]()
    for number in versions.numbers(NAME):
        receipt = json.loads((layout.home(NAME) / str(number) / layout.RECEIPT).read_text())
        needed |= {part["folder"] for part in receipt.values() if isinstance(part, dict) and "folder" in part}
    needed |= {pack for folder in needed for pack in parts_of(store.path(folder))}
    print(f"{len(needed)} artifacts are needed, {len(left)} are left", flush=True)
    return wrong + (left != needed) + (collect(KEEP).removed != 0)


if __name__ == "__main__":
    collections = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    # The verifying process is a fork of one that has imported TensorFlow, so that a run takes seconds.
    process.subprocess = warm  # type: ignore[assignment]
    warm.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LAYERFLOW_STORE"] = scratch
        sys.exit(drill(collections, seed) > 0)
