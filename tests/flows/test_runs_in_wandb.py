"""The flow with the tracker `wandb`."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.wandb_files import history, offline_runs

if importlib.util.find_spec("wandb") is None:
    pytest.skip("the extra wandb is not installed: make wandb", allow_module_level=True)


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_a_training_killed_in_the_middle_and_resumed_is_one_run_of_weights_and_biases(tmp_path: Path) -> None:
    """In processes of their own, since the first is killed."""
    environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path / "store"), "TRACKERS": "wandb"}
    environment["WANDB_DIR"] = str(tmp_path)

    def started(**more: str) -> forked.CompletedProcess[str]:
        command = [sys.executable, forked.PROGRAMS / "dies_in_training.py"]
        return forked.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=240)

    died = started(DIE="1")
    assert died.returncode == -signal.SIGKILL
    assert not offline_runs(tmp_path / "wandb")
    for _ in range(2):  # the second finds all steps cached
        ended = started()
        assert "EPOCHS 8" in ended.stdout
        (folder,) = offline_runs(tmp_path / "wandb")
        assert [*history(folder)] == [*range(1, 9)]
