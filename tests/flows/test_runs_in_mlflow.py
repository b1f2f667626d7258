"""The flow with the tracker `mlflow`."""

import importlib
import importlib.util
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from tests import forked
from tests.servers import free_port, mlflow_started

if importlib.util.find_spec("mlflow") is None:  # to import it takes seconds
    pytest.skip("the extra mlflow is not installed: make mlflow", allow_module_level=True)


def test_a_run_ends_well_where_the_server_of_mlflow_is_away(
    first_run: Retrained, server: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    flow = importlib.import_module("flows.retrain")
    monkeypatch.setattr(flow, "track_run", flow.track_run.with_options(retry_delay_seconds=[0.0, 0.0, 0.0]))
    made = retrain(RetrainConfig.model_validate({"extend": {"trackers": ["mlflow"]}}))
    assert made.promotion.status == "unchanged"
    assert "must answer. It does not (Connection refused)." in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_a_training_killed_in_the_middle_and_resumed_is_one_run_of_mlflow(tmp_path: Path) -> None:
    """In processes of their own, since the first is killed."""
    import mlflow

    with mlflow_started(tmp_path) as port:
        address = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path / "store"), "TRACKERS": "mlflow"}
        environment |= {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}  # on a busy machine
        client = mlflow.MlflowClient(address)

        def started(**more: str) -> forked.CompletedProcess[str]:
            command = [sys.executable, forked.PROGRAMS / "dies_in_training.py"]
            return forked.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=240)

        def recorded() -> tuple[str, list[int]]:
            (run,) = client.search_runs([client.get_experiment_by_name("mlp-digits").experiment_id])
            return run.info.status, [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]

        died = started(DIE="1")
        assert died.returncode == -signal.SIGKILL
        assert "told no more" not in died.stderr
        status, steps = recorded()
        assert status == "RUNNING"
        assert steps == list(range(1, len(steps) + 1)) != []
        done = started()
        assert "resuming at epoch 5 of 8" in done.stderr
        assert (recorded()[0], sorted(recorded()[1])) == ("FINISHED", list(range(1, 9)))
        client.get_model_version_by_alias("mlp-digits", "champion")
