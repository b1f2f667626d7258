"""Runs in Weights & Biases, read from the offline runs that ``wandb sync`` uploads."""

import base64
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerflow import plugins, store
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, DamagedError
from layerflow.extensions import Run
from layerflow.outcomes import Retrained
from layerflow.registry import versions
from tasks import tracking
from tests.wandb_files import history, offline_runs, records, settings, summary

if importlib.util.find_spec("wandb") is None:
    pytest.skip("the extra wandb is not installed: make wandb", allow_module_level=True)

pytestmark = pytest.mark.process  # W&B writes in a process of its own


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where W&B keeps runs."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for variable in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "wandb"


@pytest.fixture
def track(runs: Path) -> Callable[[Run], None]:
    """The tracker, as a run finds it."""
    found: Callable[[Run], None] = plugins.load("trackers", "wandb")
    return found


@pytest.fixture
def run(first_run: Retrained, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What the step `track_run` tells a tracker of the session's first run, which was published."""
    told: list[Run] = []
    monkeypatch.setattr(tracking, "_tell", lambda name, run: told.append(run))
    tracking._track_run(RetrainConfig.model_validate({"extend": {"trackers": ["wandb"]}}), first_run)
    return told[-1]


def test_a_run_is_one_offline_run_with_all_that_is_known_of_it(
    track: Callable[[Run], None], runs: Path, run: Run, first_run: Retrained
) -> None:
    track(run)
    (folder,) = offline_runs(runs)
    (begun,) = [record.run for record in records(folder) if record.HasField("run")][:1]
    assert (begun.run_id, begun.project, begun.notes) == (run.id, run.name, first_run.promotion.reason)
    kept = settings(folder)
    assert kept["training"] == run.settings["training"]
    assert kept["dataset"]["digest"] == first_run.data.digest
    rows = history(folder)
    assert [*rows] == [epoch["epoch"] for epoch in run.epochs]
    for epoch in run.epochs:
        assert {name: rows[int(epoch["epoch"])][name] for name in epoch if name != "epoch"} == {
            name: value for name, value in epoch.items() if name != "epoch"
        }
    last = summary(folder)
    assert last["test_accuracy"] == first_run.evaluation.accuracy
    assert (last["decision"], last["version"]) == (run.decision["code"], 1)
    (report,) = folder.rglob("*.html")
    assert "data:image/png;base64," in report.read_text()
    assert runs.parent.as_posix() not in str([*records(folder)])  # it can be moved


def test_a_published_version_is_an_artifact_of_the_files_that_were_published(
    track: Callable[[Run], None], runs: Path, run: Run
) -> None:
    track(run)
    (artifact,) = [each.artifact for each in records(offline_runs(runs)[0]) if each.HasField("artifact")]
    assert (artifact.name, artifact.type, {*artifact.aliases}) == (run.name, "model", {"version-1", "latest"})
    folder = versions.folder_of(run.name, 1)
    kept = {each.path: each for each in artifact.manifest.contents}
    assert {*kept} == {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    for path, each in kept.items():
        content = Path(each.local_path).read_bytes()
        assert content == (folder / path).read_bytes()
        assert base64.b64decode(each.digest) == hashlib.md5(content).digest()


def test_a_model_that_was_not_published_is_no_artifact(track: Callable[[Run], None], runs: Path, run: Run) -> None:
    track(run._replace(decision={"code": "not_better", "reason": "It is not better.", "version": None}))
    (folder,) = offline_runs(runs)
    assert not [each for each in records(folder) if each.HasField("artifact")]
    assert summary(folder)["decision"] == "not_better"


def test_no_command_line_and_no_terminal_is_written(track: Callable[[Run], None], runs: Path, run: Run) -> None:
    track(run)
    (folder,) = offline_runs(runs)
    (begun,) = [record.run for record in records(folder) if record.HasField("run")][:1]
    assert not begun.HasField("git")
    assert {record.WhichOneof("record_type") for record in records(folder)} <= {
        *("header", "telemetry", "run", "history", "summary", "config", "files", "artifact", "exit"),
        *("final", "footer"),
    }
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".wandb", ".html", ".log"}


def test_in_training_nothing_is_written(track: Callable[[Run], None], runs: Path, run: Run) -> None:
    track(run._replace(saved_model=None, decision={}, figures={}))
    assert not offline_runs(runs)


def test_a_second_identical_run_writes_nothing(track: Callable[[Run], None], runs: Path, run: Run) -> None:
    track(run)
    track(run._replace(decision={**run.decision, "code": "unchanged", "reason": "It is the live version."}))
    assert len(offline_runs(runs)) == 1


def test_another_decision_is_added_to_the_run_without_the_epochs(
    track: Callable[[Run], None], runs: Path, run: Run
) -> None:
    track(run._replace(decision={"code": "waiting", "reason": "A person must approve it.", "version": None}))
    track(run)
    first, second = sorted(offline_runs(runs), key=lambda folder: summary(folder)["decision"] != "waiting")
    (begun,) = {record.run.run_id for folder in (first, second) for record in records(folder) if record.HasField("run")}
    assert begun == run.id
    assert [*history(second)] == [len(run.epochs)]
    assert "loss" not in history(second)[len(run.epochs)]
    assert summary(second)["version"] == 1


@pytest.mark.parametrize("died", ["before the note", "after the note"])
def test_of_a_tracker_that_died_the_next_call_leaves_one_whole_run(
    track: Callable[[Run], None], runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((store, "write_atomically") if died == "before the note" else (Path, "rename")), dies)
        with pytest.raises(KeyboardInterrupt):
            track(run)
    assert not offline_runs(runs)
    track(run)
    (folder,) = offline_runs(runs)
    assert [*history(folder)] == [epoch["epoch"] for epoch in run.epochs]
    assert not [each for each in (runs / "layerflow").iterdir() if each.is_dir()]


def test_a_damaged_version_is_not_recorded(track: Callable[[Run], None], runs: Path, run: Run) -> None:
    labels = versions.folder_of(run.name, 1) / "assets.extra" / "labels.txt"
    content = labels.read_bytes()
    labels.chmod(0o644)
    labels.write_bytes(content[::-1])
    try:
        with pytest.raises(DamagedError, match=r"labels\.txt"):
            track(run)
    finally:
        labels.write_bytes(content)
    assert not offline_runs(runs)


@pytest.mark.parametrize(("folder", "reason"), [("file", r"Not a directory"), ("~nobody-here/x", "home directory")])
def test_a_folder_that_cannot_be_written_is_named(
    track: Callable[[Run], None], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", folder)
    with pytest.raises(ConfigError, match=rf"WANDB_DIR must be a folder .*\. Received: {folder} \(.*{reason}"):
        track(run)
