"""The flow under a real Prefect server."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings

import tasks
from cli.run import _is_exported
from flows.retrain import retrain
from flows.sweep import sweep
from layerflow import checksums, store
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError
from layerflow.export import process
from layerflow.outcomes import Retrained
from layerflow.registry import layout
from layerflow.settings.gate import GateConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import learning
from tasks import caching, cards
from tasks.trials.run_trial import run_trial
from tests import forked
from tests.programs.failing_step import failing_step

STEPS = [
    "load_data",
    "validate_data",
    "build_model",
    "train_model",
    "evaluate_model",
    "export_model",
    "verify_export",
    "promote_model",
]


def task_runs(flow_run_id: Any, expected: int = len(STEPS)) -> dict[str, Any]:
    """The task runs of a flow run by the task's name, once the server has recorded their last states."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
            if len(found) == expected and all(run.state and run.state.is_final() for run in found):
                break
            time.sleep(0.1)
    names = {getattr(tasks, step).task_key: step for step in STEPS}
    return {names[run.task_key]: run for run in found}


def cards_of(flow_run_id: Any) -> dict[str, str]:
    """The cards among the artifacts of a flow run by key; the bar of a training is none."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen)
    return {card.key: card.data for card in found if card.type == "markdown"}


def test_eight_steps_end_with_a_published_verified_model(first_run: Retrained) -> None:
    assert first_run.promotion.status in ("promoted", "unchanged")
    assert first_run.evaluation.accuracy >= 0.95
    assert first_run.verification.test_accuracy == first_run.evaluation.accuracy


def test_the_command_line_knows_that_nothing_is_left_to_compute(first_run: Retrained) -> None:
    assert _is_exported(RetrainConfig(), first_run.data)
    other = RetrainConfig.model_validate({"devices": {"threads": 7}})
    assert not _is_exported(other, first_run.data)


@pytest.mark.parametrize("flow", [retrain, sweep], ids=["retrain", "sweep"])
def test_a_key_that_can_not_sign_ends_a_run_before_its_first_step(
    flow: Any, server: None, empty_store: Path, signing_key: Path
) -> None:
    sign = {"key": signing_key.with_name("gone.pem")}
    state = flow(RetrainConfig.model_validate({"registry": {"sign": sign}}), return_state=True)
    with pytest.raises(ConfigError, match=r"registry\.sign\.key must be a PEM file that can be read"):
        state.result()
    assert task_runs(state.state_details.flow_run_id, 0) == {}


def test_the_same_again_is_cached_and_trains_nothing(first_run: Retrained, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a training step ran")

    monkeypatch.setattr(learning, "Engine", fail)
    state = retrain(RetrainConfig(), return_state=True)
    again = state.result()
    (card,) = cards_of(state.state_details.flow_run_id).values()
    assert f"Report with all cards: `{again.promotion.report}`." in card
    assert store.path(again.promotion.report).is_file()
    runs = task_runs(state.state_details.flow_run_id)
    assert {name: run.state_name for name, run in runs.items()} == dict.fromkeys(STEPS, "Cached") | {
        "promote_model": "Unchanged"
    }
    assert again.promotion.status == "unchanged"
    assert again.trained == first_run.trained


@pytest.mark.slow
def test_with_other_formats_two_more_steps_prove_them_and_nothing_is_trained(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch, session_store: Path
) -> None:
    """The runtime of a format runs in a process of its own, and not in a fork that has imported TensorFlow."""
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    monkeypatch.setattr(process, "subprocess", subprocess)
    more = {"convert_model": tasks.convert_model.task_key, "verify_formats": tasks.verify_formats.task_key}
    monkeypatch.setitem(globals(), "STEPS", [*STEPS, *more])
    config = RetrainConfig.model_validate({"export": {"formats": ["onnx"]}, "registry": {"name": "portable"}})
    state = retrain(config, return_state=True)
    made = state.result()
    assert made.promotion.code == "promoted_first"
    version = store.path(made.promotion.published)
    (proof,) = json.loads((version / layout.RECEIPT).read_text())["formats"]["formats"]
    assert checksums.sha256(version / layout.FORMATS / proof["file"]) == proof["digest"]
    assert "| `onnx` |" in cards_of(state.state_details.flow_run_id)["formats-portable"]
    states = {name: run.state_name for name, run in task_runs(state.state_details.flow_run_id, len(STEPS)).items()}
    assert states["evaluate_model"] == states["export_model"] == "Cached"
    assert states["convert_model"] == states["verify_formats"] == "Completed"
    again = retrain(config, return_state=True)
    assert again.result().promotion.status == "unchanged"
    assert task_runs(again.state_details.flow_run_id, len(STEPS))["convert_model"].state_name == "Cached"


def test_a_run_starts_from_a_published_version_and_the_next_from_the_live_one(first_run: Retrained) -> None:
    def run(weights: str) -> Any:
        settings = {"model": {"weights": weights}, "training": {"epochs": 1}, "registry": {"name": "warm"}}
        return retrain(RetrainConfig.model_validate(settings), return_state=True)

    first = run(f"mlp-digits@{first_run.promotion.version}").result()
    assert first.model.digest == first_run.trained.digest
    assert first.trained.history[0].accuracy > 0.95
    assert first.promotion.code == "promoted_first"
    receipt = json.loads(store.path(first.promotion.receipt).read_text())
    assert receipt["model"]["weights"]["source"] == receipt["config"]["model"]["weights"]
    state = run("champion")
    second = state.result()
    assert second.model.weights.source == "warm@1"
    assert second.model.digest == first.trained.digest
    if second.promotion.status == "kept":
        again = run("champion")
        assert again.result().model == second.model
        assert task_runs(again.state_details.flow_run_id)["build_model"].state_name == "Cached"


def test_runs_are_named_for_what_they_do_and_steps_are_described(first_run: Retrained) -> None:
    state = retrain(RetrainConfig(), return_state=True)
    runs = task_runs(state.state_details.flow_run_id)
    assert runs["train_model"].name == "train-mlp-on-digits"
    for name in STEPS:
        assert getattr(tasks, name).description
    assert retrain.description


def test_five_cards_are_artifacts_of_the_run_and_say_how_to_repeat_it(first_run: Retrained) -> None:
    config = RetrainConfig.model_validate({"data": {"validation_fraction": 0.2}, "training": {"epochs": 1}})
    state = retrain(config, return_state=True)
    cards = cards_of(state.state_details.flow_run_id)
    kinds = ("training", "evaluation", "export", "decision")
    assert cards.keys() == {"data-digits", *(f"{kind}-mlp-digits" for kind in kinds)}
    for card in cards.values():
        assert card.endswith("To reproduce: `layerflow retrain --data.validation_fraction 0.2 --training.epochs 1`\n")
    assert "Bars: images of each class of digits" in cards["data-digits"]
    assert "# ✗ mlp-digits: not published" in cards["decision-mlp-digits"]


def test_a_card_that_the_server_refuses_fails_no_decision(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**card: object) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(cards, "create_markdown_artifact", refuse)
    state = retrain(RetrainConfig(), return_state=True)
    assert state.result().promotion.code == "unchanged"
    assert task_runs(state.state_details.flow_run_id)["promote_model"].run_count == 1


def test_no_task_has_tags_for_each_of_which_it_would_ask_the_server_for_a_slot() -> None:
    for step in (*tasks.__all__, "run_trial"):
        assert getattr(tasks, step, run_trial).tags == set(), step


def test_another_seed_trains_anew_and_loads_nothing_anew(first_run: Retrained) -> None:
    state = retrain(RetrainConfig(training=TrainingConfig(seed=1, epochs=2)), return_state=True)
    runs = task_runs(state.state_details.flow_run_id)
    assert runs["load_data"].state_name == "Cached"
    assert runs["train_model"].state_name == "Completed"
    assert state.result().promotion.status == "kept"
    assert state.result().promotion.version == first_run.promotion.version


def test_a_figure_of_a_class_that_the_data_lack_ends_the_run_before_the_training(first_run: Retrained) -> None:
    state = retrain(RetrainConfig(gate=GateConfig(metric="recall:cow")), return_state=True)
    assert state.is_failed()
    assert "gate.metric must name classes of the data" in (state.message or "")
    assert task_runs(state.state_details.flow_run_id, expected=1).keys() == {"load_data"}


@pytest.fixture
def restored(first_run: Retrained, session_store: Path, tmp_path: Path) -> Iterator[None]:
    """The session's store is as it was when the test is over: other tests have the figures of the first run."""
    shutil.copytree(session_store, tmp_path / "before")
    yield
    shutil.rmtree(session_store)
    shutil.copytree(tmp_path / "before", session_store)


@pytest.mark.usefixtures("restored")
def test_everything_is_made_anew_where_prefect_is_told_to_refresh(
    server: None,
    first_run: Retrained,
    session_store: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a real server, for the switch is Prefect's: every step runs, trains from the first epoch, ends the same."""
    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    before = (session_store / first_run.trained.folder / "record.json").stat().st_mtime_ns
    with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
        state = retrain(RetrainConfig(), return_state=True)
    again = state.result()
    states = {name: run.state_name for name, run in task_runs(state.state_details.flow_run_id).items()}
    assert states == dict.fromkeys(STEPS, "Completed") | {"promote_model": "Unchanged"}
    assert (session_store / again.trained.folder / "record.json").stat().st_mtime_ns != before
    assert again.trained.digest == first_run.trained.digest
    assert again.promotion.code == "unchanged"
    assert "epoch 1/" in caplog.text
    assert "resuming" not in caplog.text
    assert "train_model runs because everything is made anew" in caplog.text


def test_the_log_says_why_a_step_runs(
    first_run: Retrained, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the session's server: another number of epochs trains anew, and nothing before it."""
    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    retrain(RetrainConfig.model_validate({"training": {"epochs": 2}}))
    assert "train_model runs because training.epochs changed: 50 → 2" in caplog.text
    assert "evaluate_model runs because trained changed" in caplog.text
    assert "load_data runs" not in caplog.text


def test_a_deleted_artifact_is_made_again_and_what_follows_stays_cached(first_run: Retrained) -> None:
    shutil.rmtree(store.path(first_run.evaluation.folder))
    state = retrain(RetrainConfig(), return_state=True)
    runs = task_runs(state.state_details.flow_run_id)
    assert runs["evaluate_model"].state_name == "Completed"
    assert runs["train_model"].state_name == "Cached"
    assert runs["verify_export"].state_name == "Cached", "the same evaluation leads to the same verification"


def test_a_damaged_artifact_is_made_again_in_the_same_run(first_run: Retrained) -> None:
    predictions = store.path(first_run.evaluation.predictions)
    content = bytearray(predictions.read_bytes())
    content[-1] ^= 1
    predictions.write_bytes(content)
    state = retrain(RetrainConfig(), return_state=True)
    assert task_runs(state.state_details.flow_run_id)["evaluate_model"].state_name == "Completed"
    assert checksums.sha256(predictions) == first_run.evaluation.predictions_digest


def test_results_are_json_beside_the_artifact(first_run: Retrained) -> None:
    record = json.loads((store.path(first_run.trained.folder) / "result.json").read_text())
    assert json.loads(record["result"])["data"]["digest"] == first_run.trained.digest
    assert [entry.name for entry in store.root().iterdir() if entry.is_file()] == []


def run_in_flow(step: Any, number: int, name: str) -> Any:
    from prefect import flow

    @flow(name=name, result_storage=caching.result_storage(), persist_result=False)
    def small() -> Any:
        return step(number)

    return small(return_state=True)


def test_what_heals_is_retried_until_it_succeeds(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [ConnectionError("reset"), TimeoutError("slow")]
    began = time.monotonic()
    state = run_in_flow(failing_step(errors), 1, "heals")
    assert state.is_completed()
    assert errors == []
    assert time.monotonic() - began > 1, "it waits between tries"


@pytest.mark.parametrize(
    "error",
    [ConfigError("`x` must be 1. Received: 2"), ValueError("a defect"), OSError(28, "No space left on device")],
    ids=["config", "defect", "disk full"],
)
def test_what_does_not_heal_is_tried_once(server: None, error: Exception) -> None:
    errors = [error, error]
    state = run_in_flow(failing_step(errors), 2, "lasting")
    assert state.is_failed()
    assert len(errors) == 1


def test_an_error_of_the_users_is_logged_without_a_traceback(
    server: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    run_in_flow(failing_step([ConfigError("`x` must be 1. Received: 2")]), 3, "sentence")
    assert "`x` must be 1. Received: 2" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_a_training_killed_in_the_middle_is_resumed_by_the_next_run(tmp_path: Path) -> None:
    """In processes of their own, since the first is killed."""
    environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path / "store")}
    command = [sys.executable, forked.PROGRAMS / "dies_in_training.py"]
    dying = {**environment, "DIE": "1"}
    died = forked.run(command, env=dying, capture_output=True, text=True, timeout=120)
    assert died.returncode == -signal.SIGKILL
    done = forked.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "resuming at epoch 5 of 8" in done.stderr
    assert "EPOCHS 8" in done.stdout


def test_a_failed_run_leaves_no_file_of_its_exception(first_run: Retrained, session_store: Path) -> None:
    speed = {"class_name": "Adam", "config": {"speed": 3}}
    wrong = RetrainConfig.model_validate({"training": {"optimizer": speed}})
    before = {file for file in session_store.iterdir() if file.is_file()}  # of the flows of other tests
    with pytest.raises(ConfigError, match="is refused by Keras"):
        retrain(wrong)
    assert {file for file in session_store.iterdir() if file.is_file()} == before
