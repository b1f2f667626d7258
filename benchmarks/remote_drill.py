"""Publish from two machines into one bucket, and kill them: no version is torn, doubled or lost.

Usage: ``python benchmarks/remote_drill.py [RACES] [KILLS] [SEED]``. An S3 server on loopback, and two stores, each with
a process that publishes small versions. First both publish at the same moments, with leases and without: then only
claims and compare-and-swap are left. Then one after the other is killed at a random moment, most of them within a
publication. After each kill a third store looks at the bucket.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from layerflow import checksums
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.errors import DamagedError, UnreachableError
from layerflow.registry import publishing, shared, sharing, versions
from layerflow.registry.layout import home
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.remote import bucket as buckets
from layerflow.remote import lease
from layerflow.settings.gate import RegistryConfig, SignConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests import object_store

NAME = "drill"
#: Seconds after which the lease of a killed process is free.
LEASE_SECONDS = 1.0


def publish_one(label: str, scratch: Path, keep: int = 3, sign: SignConfig = SignConfig()) -> int:  # noqa: B008
    """Publish a small version, as a promotion does, and return its number."""
    with sharing.changing(NAME):
        ledger = read_ledger(NAME)
        write_ledger(NAME, ledger.model_copy(update={"looks": ledger.looks + 1}))
        number = publishing.next_version(NAME)
        print("publishing", flush=True)
        source, receipt = make_export(scratch / label, label, number)
        publishing.release(NAME, RegistryConfig(keep=keep, sign=sign), source, receipt, "a report", b"images", True)
    return number


def make_export(folder: Path, label: str, number: int) -> tuple[Path, dict[str, Any]]:
    """An export of a few bytes, and the receipt of its version."""
    classes, shape = ["0", "1"], [8, 8, 1]
    contract = json.dumps({"classes": classes, "image_shape": shape})
    files = {"saved_model.pb": label, f"{EXTRA}/contract.json": contract}
    for file, content in {**files, **{f"variables/{each}": label * 1000 for each in ("index", "data")}}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    digests = checksums.write_digests(folder)
    return folder, {
        "name": NAME,
        "version": number,
        "export": {"digest": digests[DIGESTS], "files": digests},
        "created": "2026-01-01",
        "data": {"name": "digits", "digest": "d", "classes": classes, "image_shape": shape},
        "trained": {"digest": label},
        "evaluation": {"accuracy": 1.0, "test_digest": "t"},
        "decision": {},
    }


def work(times: int, with_leases: bool) -> None:
    """Publish, over and over, each time after a line on stdin if ``times`` says how often."""
    lease.SECONDS = LEASE_SECONDS
    if not with_leases:
        sharing.Lease = _NoLease  # type: ignore[misc,assignment]
    print("ready", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(times or sys.maxsize):
            if times:
                sys.stdin.readline()
            label = f"{os.getpid()}-{number}"
            try:
                print("published", publish_one(label, Path(scratch)), label, flush=True)
            except UnreachableError as error:
                print("refused", error, flush=True)


class _NoLease:
    """Lets everybody in, as if each lease had been taken over from a machine that was suspended."""

    is_held = True

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> "_NoLease":
        return self

    def __exit__(self, *arguments: object) -> None:
        pass


def start(store: Path, times: int, with_leases: bool = True) -> "subprocess.Popen[str]":
    """A machine: a process with a store of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "work", str(times), str(with_leases)],
        env={**os.environ, "LAYERFLOW_STORE": str(store)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def what_is_wrong(announced: dict[int, str], keep: int = 3) -> list[str]:
    """What a machine with an empty disk, or a server that looks into the bucket, would stumble over."""
    bucket = buckets.in_force()
    assert bucket
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LAYERFLOW_STORE"] = scratch
        objects = bucket.names(f"models/{NAME}")
        sharing.refresh(NAME)
        ledger, there = read_ledger(NAME), versions.numbers(NAME)
        for number in there:
            with contextlib.suppress(DamagedError):  # which is found below
                versions.folder_of(NAME, number)
        wrong = [f"version {each} is torn: {damage}" for each in there if (damage := versions.damage(NAME, each))]
        visible = {file.partition("/")[0] for file in objects if file.endswith(f"/{shared.COMMIT}")}
        for number in sorted(int(each) for each in visible if each.isdigit()):
            files = {file.partition("/")[2] for file in objects if file.startswith(f"{number}/")}
            folder = home(NAME) / str(number)
            if number in there and not (folder.is_dir() and files >= set(checksums.listed(folder))):
                wrong.append(f"version {number} is torn in the bucket")
        newest = {number for number in sorted(announced)[-keep:] if number > max(there, default=0) - keep}
        wrong += [f"version {number} is lost: {there}" for number in newest - set(there)]
        if announced and max(announced) > max(there, default=0):
            wrong.append(f"version {max(announced)} is lost: {there}")
        for number in set(there) & announced.keys():
            if (versions.receipt_of(NAME, number) or {}).get("trained") != {"digest": announced[number]}:
                wrong.append(f"version {number} is doubled")
        if there and ledger.highest < there[0]:
            wrong.append(f"the ledger has given {ledger.highest}, and {there[0]} is there")
    return wrong


def _read(line: str, announced: dict[int, str]) -> list[str]:
    """Note a line of a machine; what is wrong with it."""
    said, _, rest = line.strip().partition(" ")
    if said != "published":
        return []
    number, label = rest.split()
    doubled = [f"number {number} was given twice"] if int(number) in announced else []
    announced[int(number)] = label
    return doubled


def race(stores: list[Path], times: int, with_leases: bool, announced: dict[int, str]) -> list[str]:
    """Let two machines publish at the same moments."""
    machines = [start(store, times, with_leases) for store in stores]
    wrong, refused = [], 0
    for machine in machines:
        assert machine.stdout
        machine.stdout.readline()
    for _ in range(times):
        for machine in machines:
            assert machine.stdin
            machine.stdin.write("go\n")
            machine.stdin.flush()
        for machine in machines:
            assert machine.stdout
            for line in machine.stdout:
                wrong += _read(line, announced)
                refused += line.startswith("refused")
                if not line.startswith("publishing"):
                    break
    for machine in machines:
        machine.communicate()
    wrong += what_is_wrong(announced)
    print(f"{times} races {'with' if with_leases else 'without'} leases: {len(announced)} versions, ", end="")
    print(f"{refused} refused, {len(wrong)} wrong", flush=True)
    return wrong


def publish_and_kill(store: Path, moment: Random, announced: dict[int, str]) -> list[str]:
    """Let a machine publish, and kill it: mostly in the middle of a publication."""
    machine, after = start(store, 0), moment.uniform(0, 1.5)
    wrong, killer, published = [], None, 0
    assert machine.stdout
    for line in machine.stdout:
        wrong += _read(line, announced)
        published += line.startswith("published")
        if killer is None and line.startswith("publishing") and published >= 1:
            killer = threading.Timer(after, machine.send_signal, (signal.SIGKILL,))
            killer.start()
    machine.wait()
    if killer is None:
        wrong.append("the next machine could not publish")
    return wrong + what_is_wrong(announced)


def drill(races: int, kills: int, seed: int) -> int:
    """Race and kill so many times; return how many things were wrong."""
    moment, announced, failures = Random(seed), dict[int, str](), 0
    with ExitStack() as stack, patch.dict(os.environ):  # as it was, for whoever calls this
        stack.callback(buckets.forget)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        proxy = object_store.Proxy(stack.enter_context(object_store.s3_server()))
        os.environ |= {
            **object_store.environment_of(proxy.url),
            "LAYERFLOW_REMOTE": f"s3://{object_store.BUCKET}/drill",
        }
        stores = [scratch / "a", scratch / "b"]
        for with_leases in (True, False):
            for wrong in race(stores, races, with_leases, announced) if races else ():
                failures += 1
                print(wrong, flush=True)
        for number in range(1, kills + 1):
            for wrong in publish_and_kill(stores[number % 2], moment, announced):
                failures += 1
                print(wrong, flush=True)
            if number % 10 == 0 or number == kills:
                print(f"{number} kills, {len(announced)} versions published, {failures} wrong", flush=True)
    return failures


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(int(sys.argv[2]), sys.argv[3] == "True")
    else:
        races, kills = (int(sys.argv[place]) if len(sys.argv) > place else 100 for place in (1, 2))
        seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 1_000_000
        print(f"seed {seed}", flush=True)
        sys.exit(drill(races, kills, seed) > 0)
