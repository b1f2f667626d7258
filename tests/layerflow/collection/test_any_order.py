"""Runs, publications, rollbacks, kills and collections in any order, against a plain model of what must live."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layerflow import artifacts, checksums, store, uses
from layerflow.collection import collect as collecting
from layerflow.collection.collect import collect
from layerflow.parts import PARTS
from layerflow.records import ModelRef
from layerflow.registry import layout, pages, publishing, versions
from layerflow.settings.gc import GcConfig

pytestmark = pytest.mark.slow
DAY_NS = 24 * 3600 * 10**9
NAMES = st.sampled_from(["cats", "dogs"])
FEW = st.integers(0, 2)


class Killed(BaseException):
    """The end of a process, at any moment."""


class AnyOrder(RuleBasedStateMachine):
    """The model: on which day each thing was used last, and what receipts, versions of data and processes need."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("LAYERFLOW_STORE", str(self.root))
        self.patch.setattr(os, "fsync", lambda handle: None)  # no machine goes down here
        self.day = 0
        self.used: dict[str, int] = {}
        self.packs: dict[str, set[str]] = {}  # that each version of data needs
        self.published: dict[tuple[str, int], set[str]] = {}
        self.kept: dict[str, list[str]] = {"cats": [], "dogs": []}  # receipts of each model, oldest first
        self.named: dict[str, set[str]] = {}
        self.alive: list[tuple[uses.Notes, set[str]]] = []
        self.training: dict[str, FileLock] = {}

    def teardown(self) -> None:
        for notes, _ in self.alive:
            notes.end()
        for lock in self.training.values():
            lock.release()
        self.end_process()
        self.patch.undo()
        shutil.rmtree(self.root)

    def end_process(self) -> uses.Notes | None:
        """The process of a run ends, or continues and keeps the notes that are returned."""
        mine, uses._mine = uses._mine, None
        return mine

    def make(self, path: str) -> str:
        def build(folder: Path) -> ModelRef:
            if packs := self.packs.get(path):
                (folder / PARTS).write_text(json.dumps(sorted(packs)))
            (folder / "saved_model" / checksums.EXTRA).mkdir(parents=True)
            (folder / "saved_model" / "graph").write_text(path)
            checksums.write_digests(folder / "saved_model")
            (folder / "card.md").write_text(path)
            return ModelRef(name="m", digest=path, parameters=1)

        artifacts.make(*path.split("/"), ModelRef, build)
        self.used[path] = self.day
        return path

    @rule(
        name=NAMES,
        data=st.booleans(),
        packs=st.sets(FEW),
        setting=st.booleans(),
        end=st.sampled_from(["published", "kept", "goes on", "killed"]),
    )
    def run(self, name: str, data: bool, packs: set[int], setting: bool, end: str) -> None:
        data_of_it = f"load_data/{data}"
        if data_of_it not in self.used:
            self.packs[data_of_it] = {f"packs/{number:032}" for number in packs}
        uses_too = {self.make(pack) for pack in self.packs[data_of_it]}
        self.make(data_of_it)
        model, export = (self.make(f"{step}/{data}-{setting}") for step in ("train_model", "export_model"))
        source = store.path(export) / "saved_model"
        receipt = {
            "created": "2026-01-01",
            "data": {"folder": data_of_it, "name": "n", "digest": "d", "classes": ["a"]},
            "trained": {"folder": model, "digest": model},
            "evaluation": {"accuracy": 1.0, "test_digest": "t"},
            "export": {"folder": export, "digest": export, "files": checksums.write_digests(source)},
            "decision": {},
        }
        if end == "published":
            self.publish(name, source, receipt, {data_of_it, model, export})
        elif end == "kept":
            file = self.root / "receipts" / name / f"{data}-{setting}.json"
            pages.file(file, receipt | {"version": None}, file.with_suffix(".html"), "page")
            path = f"receipts/{name}/{file.name}"
            self.kept[name] = [*(each for each in self.kept[name] if each != path), path]
            self.named[path], self.used[path] = {data_of_it, model, export}, self.day
        if (notes := self.end_process()) and end == "goes on":
            self.alive.append((notes, {data_of_it, model, export} | uses_too))
        elif notes:
            notes.end()

    def publish(self, name: str, source: Path, receipt: dict[str, object], made: set[str]) -> None:
        with store.locked(f"models-{name}"):
            number = publishing.next_version(name)
            publishing.publish(name, number, source, receipt | {"version": number})
            publishing.prune(name, keep=2)
        self.published[name, number] = made
        there = versions.numbers(name)
        self.published = {key: made for key, made in self.published.items() if key[0] != name or key[1] in there}

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        name, number = data.draw(st.sampled_from(sorted(self.published)))
        receipt = versions.receipt_of(name, number)
        assert receipt
        self.publish(name, layout.home(name) / str(number), receipt, self.published[name, number])

    @precondition(lambda self: self.alive)
    @rule()
    def a_run_ends(self) -> None:
        self.alive.pop(0)[0].end()

    @rule(key=FEW)
    def train(self, key: int) -> None:
        """A training saves a checkpoint, and goes on until a later step ends it."""
        if lock := self.training.pop(f"checkpoints/{key}", None):
            lock.release()
            return
        (self.root / ".locks").mkdir(exist_ok=True)
        lock = FileLock(self.root / ".locks" / f"training-{key}.lock")
        lock.acquire()
        (self.root / "checkpoints" / str(key)).mkdir(parents=True, exist_ok=True)
        (self.root / "checkpoints" / str(key) / "a.ckpt").write_text("weights")
        os.utime(self.root / "checkpoints" / str(key))
        self.training[f"checkpoints/{key}"] = lock
        self.used[f"checkpoints/{key}"] = self.day

    @rule(key=FEW)
    def sweep(self, key: int) -> None:
        (self.root / "sweeps" / str(key)).mkdir(parents=True, exist_ok=True)
        (self.root / "sweeps" / str(key) / "journal.log").write_text("line")
        self.used[f"sweeps/{key}"] = self.day

    @rule()
    def leave_something_half_done(self) -> None:
        (self.root / "train_model" / ".0-0.working").mkdir(parents=True, exist_ok=True)

    @rule(days=st.integers(1, 2))
    def days_pass(self, days: int) -> None:
        self.day += days
        for path in (self.root, *self.root.rglob("*")):
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns - days * DAY_NS, status.st_mtime_ns - days * DAY_NS))

    @rule(keep_days=FEW, keep_runs=FEW, killed_after=st.none() | st.integers(0, 3))
    def collect(self, keep_days: int, keep_runs: int, killed_after: int | None) -> None:
        left = iter(range(99 if killed_after is None else killed_after))

        def replace(source: str, target: str) -> None:
            if next(left, None) is None:
                raise Killed
            Path(source).rename(target)

        live = self.live(keep_days, keep_runs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collecting.os, "replace", replace)
            try:
                told = collect(GcConfig(keep_days=keep_days, keep_runs=keep_runs))
            except Killed:
                told = None
        there = {path for path in self.used if (self.root / path).exists()}
        assert live <= there, "nothing that lives is ever removed"
        if told:
            assert there == live, "nothing dead survives"
            assert told.removed == len(self.used) - len(live)
        for path in self.used.keys() - there:
            del self.used[path]
            self.named.pop(path, None)
        self.kept = {name: [each for each in paths if each in there] for name, paths in self.kept.items()}

    def live(self, keep_days: int, keep_runs: int) -> set[str]:
        last = [path for paths in self.kept.values() for path in (paths[-keep_runs:] if keep_runs else [])]
        needed = set(last).union(*(self.named[path] for path in last), *self.published.values())
        young = {path for path, day in self.used.items() if self.day - day < keep_days}
        in_use = set(self.training).union(*(made for _, made in self.alive))
        live = self.used.keys() & (needed | young | in_use)
        return live.union(*(self.packs.get(path, ()) for path in live))

    @invariant()
    def every_version_is_whole(self) -> None:
        for name, number in self.published:
            assert checksums.damage(layout.home(name) / str(number)) is None

    @invariant()
    def what_is_there_is_whole(self) -> None:
        for path in self.used:
            if path.startswith(("load_data", "train_model", "export_model", "packs")):
                assert (self.root / path / "card.md").exists() == (self.root / path / "record.json").exists()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=int(os.environ.get("LAYERFLOW_HISTORIES", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
