"""The bar of a training among its run's artifacts."""

import contextlib
import os
import pty
import sys
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

import tasks
from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from layerflow.records import DatasetRef, ModelRef
from tasks import caching, progress
from tests import forked

ROOT = Path(__file__).resolve().parents[2]


@flow(result_storage=caching.result_storage(), persist_result=False)
def only_training(config: RetrainConfig, model: ModelRef, data: DatasetRef) -> None:
    tasks.train_model(config.training, config.augment, config.finetune, model, data, config.devices)


def bars(first_run: Retrained, seed: int) -> list[tuple[str, float]]:
    config = RetrainConfig.model_validate({"training": {"epochs": 2, "seed": seed}})
    state = only_training(config, first_run.model, first_run.data, return_state=True)
    assert state.is_completed()
    ours = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    chosen = ArtifactFilter(flow_run_id=ours, type=ArtifactFilterType(any_=["progress"]))
    with get_client(sync_client=True) as client:
        return [(bar.key, bar.data) for bar in client.read_artifacts(artifact_filter=chosen)]


def test_training_is_a_bar_that_ends_full(first_run: Retrained) -> None:
    assert bars(first_run, 501) == [("progress-of-train-mlp-on-digits", 100.0)]


def test_a_server_that_refuses_the_bar_does_not_stop_the_training(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    assert bars(first_run, 502) == []


def showing(stderr: int) -> forked.Popen[bytes]:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    return forked.Popen(
        [sys.executable, forked.PROGRAMS / "shows_progress.py"], stderr=stderr, env=environment, cwd=ROOT
    )


@pytest.mark.process
def test_a_terminal_has_a_bar_below_the_log_and_nothing_of_it_stays() -> None:
    """In a process of its own, whose stderr is a terminal."""
    reader, writer = pty.openpty()
    process = showing(writer)
    os.close(writer)
    text = ""
    with contextlib.suppress(OSError):  # what Linux says when the other end is closed
        while part := os.read(reader, 65536):
            text += part.decode(errors="replace")
    assert process.wait(timeout=120) == 0
    assert "3/3" in text
    assert "loss 0.2500" in text
    *before, line = (part for part in text.split("\n") if "in between" in part)
    assert len(before) == 2
    assert line.partition("in between")[0].rpartition("\x1b[2K")[1], "the bar was wiped before the log's line"
    assert text.rstrip().endswith("\x1b[2Kover"), "the bar is gone in the end"


@pytest.mark.process
def test_a_log_has_no_bar(tmp_path: Path) -> None:
    """In a process of its own, whose stderr is a file."""
    with (tmp_path / "log").open("w") as log:
        assert showing(log.fileno()).wait(timeout=120) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len([line for line in lines if line.endswith("in between")]) == 3
    assert not [line for line in lines if "3/3" in line or "\x1b[2K" in line]
