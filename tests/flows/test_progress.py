"""The bar of a training among its run's artifacts."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from tasks import progress

ROOT = Path(__file__).resolve().parents[2]


def bars(config: dict[str, Any]) -> list[tuple[str, float]]:
    state = retrain(RetrainConfig.model_validate(config), return_state=True)
    assert state.is_completed()
    ours = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    chosen = ArtifactFilter(flow_run_id=ours, type=ArtifactFilterType(any_=["progress"]))
    with get_client(sync_client=True) as client:
        return [(bar.key, bar.data) for bar in client.read_artifacts(artifact_filter=chosen)]


def test_training_is_a_bar_that_ends_full(first_run: Retrained) -> None:
    assert bars({"training": {"epochs": 2, "seed": 501}}) == [("progress-of-train-mlp-on-digits", 100.0)]


def test_a_server_that_refuses_the_bar_does_not_stop_the_training(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    assert bars({"training": {"epochs": 2, "seed": 502}}) == []


#: Three epochs and a line of the log between them, as the step has them.
SHOWING = """
import sys, time
from prefect.logging import get_logger
from tasks.progress import epochs_shown

with epochs_shown(3) as callbacks:
    for epoch in range(3):
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"loss": 0.25})
        time.sleep(0.2)
        get_logger().info("in between")
print("over", file=sys.stderr)
"""


def showing(stderr: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    return subprocess.Popen([sys.executable, "-c", SHOWING], stderr=stderr, env=environment, cwd=ROOT)


def test_a_terminal_has_a_bar_below_the_log_and_nothing_of_it_stays() -> None:
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


def test_a_log_has_no_bar(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        assert showing(log.fileno()).wait(timeout=120) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len([line for line in lines if line.endswith("in between")]) == 3
    assert not [line for line in lines if "3/3" in line or "\x1b[2K" in line]
