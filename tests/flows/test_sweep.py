"""Sweeps on a real server: trials in processes of their own, kills, crashes, a Ray cluster."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.settings import PREFECT_API_URL

import tasks
from flows.sweep import sweep
from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.errors import (
    ClusterError,
    ConfigError,
    DamagedError,
    NonFiniteLossError,
    OutOfMemoryError,
    SweepError,
    TrialError,
    UnreachableError,
    WorkersLostError,
)
from layerflow.records import DatasetRef
from layerflow.sweeps.outcomes import StudyRef, SweepOutcome, Trial
from layerflow.sweeps.space import configured, plan
from layerflow.sweeps.study import Study, study_of
from layerflow.training import learning, ray_cluster
from tasks import choose_winner
from tasks.caching import make
from tasks.trials.child import is_of_settings
from tasks.trials.process import is_stopped, stop_trials, trial_process
from tasks.trials.schedule import _runner, run_trials
from tests import forked
from tests.made_data import write_version

ROOT = Path(__file__).resolve().parents[2]
CONFIG = RetrainConfig.model_validate({"training": {"epochs": 3}, "registry": {"name": "swept"}})
SPACE: dict[str, Any] = {
    "training.learning_rate": {"log_uniform": [1e-3, 1e-2]},
    "model.hidden": {"choice": [[16], [32]]},
}


@pytest.fixture(scope="module")
def swept(server: None) -> tuple[SweepOutcome, Any]:
    """A sweep of two trials in the session's store, and its flow run; this process must train nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "Engine", None)
        state = sweep(CONFIG, SPACE, trials=2, parallel=2, return_state=True)
    return state.result(), state.state_details.flow_run_id


def task_runs(flow_run_id: Any, expected: int) -> dict[str, str]:
    """The states of a flow run's task runs, by name, once they are known."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=chosen)
            if len(runs) >= expected and all(run.state and run.state.is_final() for run in runs):
                return {run.name: str(run.state_name) for run in runs}
            assert time.monotonic() < deadline, runs
            time.sleep(0.1)


def runs_of(name: str, flow_run_id: Any) -> int:
    """How often a task run was begun: more than once where it was retried."""
    task_runs(flow_run_id, 1)
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return sum(run.run_count for run in client.read_task_runs(flow_run_filter=chosen) if run.name == name)


def processes() -> set[psutil.Process]:
    """The processes that this one has started and that still run."""
    return {each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(autouse=True)
def forked_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of trials are forks, but for those of ``swept`` and of sweeps in processes of their own."""
    monkeypatch.setattr(sys.modules["tasks.trials.process"], "subprocess", forked)


def figures(trials: tuple[Trial, ...] | list[Trial]) -> list[Any]:
    """What must not depend on where and when trials ran."""
    return [(trial.state, trial.value, trial.settings, trial.curve) for trial in trials]


def test_trials_are_named_task_runs_and_the_best_is_published_by_the_ordinary_flow(
    swept: tuple[SweepOutcome, Any],
) -> None:
    made, flow_run = swept
    states = task_runs(flow_run, 6)
    before, after = ("load-digits", "validate-digits"), ("choose-mlp-for-digits", "retrain-0")
    assert states.keys() == {*before, "trial-0", "trial-1", *after}
    assert states["trial-0"] == states["trial-1"] == "Completed"
    values = [trial.value for trial in made.result.trials]
    assert made.result.winner.value == min(values)  # type: ignore[type-var]
    assert made.retrained.trained.epochs == 3
    assert made.retrained.promotion.code == "promoted_first"
    assert made.retrained.promotion.name == "swept"


def test_the_best_is_not_trained_twice_and_each_figure_is_that_of_its_training(swept: tuple[SweepOutcome, Any]) -> None:
    made, _ = swept  # the fixture takes the engine away from this process
    history = made.retrained.trained.history
    assert made.result.winner.curve == tuple(epoch.val_loss for epoch in history)
    assert made.result.winner.value == min(epoch.val_loss for epoch in history)


def test_each_trial_and_the_sweep_have_a_card(swept: tuple[SweepOutcome, Any]) -> None:
    made, flow_run = swept
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        made_cards = sorted(client.read_artifacts(artifact_filter=chosen), key=lambda card: str(card.created))
    cards = {card.key: str(card.data) for card in made_cards}
    cards.pop("data-digits", None)  # where this process checks the data for the first time
    assert cards.keys() == {"training-swept-trial-0", "training-swept-trial-1", "sweep-swept"}
    assert store.path(made.result.card).read_text() == cards["sweep-swept"]
    before, _ = (str(card.data) for card in made_cards if card.key == "sweep-swept")
    assert "2 trials: 1 complete, 1 running." in before, "drawn when the first trial had ended"
    rate = made.result.trials[1].settings["training.learning_rate"]
    assert f"--training.learning_rate {rate}" in cards["training-swept-trial-1"]


def test_the_same_again_runs_no_trial_and_changes_nothing(swept: tuple[SweepOutcome, Any]) -> None:
    state = sweep(CONFIG, SPACE, trials=2, return_state=True)
    again = state.result()
    assert "trial-0" not in task_runs(state.state_details.flow_run_id, 3)
    assert again.result == swept[0].result
    assert again.retrained.trained == swept[0].retrained.trained


@pytest.fixture
def without_test_images(digits: DatasetRef, empty_store: Path, session_store: Path) -> DatasetRef:
    """The digits in a store of the test's own, all their test images and labels zero."""

    def copy(folder: Path) -> DatasetRef:
        zeros = tuple(np.zeros_like(each) for each in splits["test"])
        made = write_version(folder, {**splits, "test": zeros}, digits)
        assert made.test_digest != digits.test_digest
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERFLOW_STORE", str(session_store))
        splits = {split: images_and_labels(digits, split) for split in digits.counts}
    return artifacts.make("load_data", "without-test", DatasetRef, copy)


@flow(name="trials", persist_result=False)
def trials(config: RetrainConfig, space: Any, data: DatasetRef, count: int, parallel: int, ray: str | None) -> StudyRef:
    return run_trials(config, plan(config, space, ray), data, count, parallel, ray)


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_on_ray_without_the_test_images_the_figures_are_the_same(
    swept: tuple[SweepOutcome, Any], without_test_images: DatasetRef, tmp_path: Path
) -> None:
    """In a process of its own: one that was part of a Ray cluster loses the actors that it starts on the next."""
    pytest.importorskip("prefect_ray")
    arguments = [CONFIG.model_dump_json(), json.dumps(SPACE), without_test_images.model_dump_json()]
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "trials_on_ray.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    study = StudyRef.model_validate_json(done.stdout.splitlines()[-1])
    assert figures(Study(study).trials) == figures(swept[0].result.trials)


def test_a_trial_that_fails_or_is_killed_fails_alone(
    server: None, digits: DatasetRef, session_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(forked.PROGRAMS / "ways_to_fail.py", tmp_path / "sweptnet.py")
    monkeypatch.chdir(tmp_path)
    ways = ["killed", "wrong", "well"]  # with seed 20 the three are drawn in this order: killed, well, wrong
    config = RetrainConfig.model_validate({"model": {"name": "sweptnet:net"}, "training": {"epochs": 1, "seed": 20}})
    space = {"model.options.way": {"choice": ways}}
    ended = Study(trials(config, space, digits, 3, 2, None)).trials
    outcome = {str(trial.settings["model.options.way"]): trial for trial in ended}
    assert {way: trial.state for way, trial in outcome.items()} == {
        "killed": "failed",
        "wrong": "failed",
        "well": "complete",
    }
    assert "It ended with signal 9, as when memory runs out" in outcome["killed"].reason
    assert "the way is wrong" in outcome["wrong"].reason


def test_what_is_no_fault_of_the_settings_ends_the_sweep_at_once_and_leaves_the_trial_open(
    server: None, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(forked.PROGRAMS / "ways_to_fail.py", tmp_path / "fullnet.py")
    (tmp_path / "disk-is-full").touch()
    monkeypatch.chdir(tmp_path)
    config = RetrainConfig.model_validate({"model": {"name": "fullnet:net"}, "training": {"epochs": 1}})
    space = {"model.options": {"choice": [{"way": "full"}]}}
    state = trials(config, space, digits, 1, 1, None, return_state=True)
    with pytest.raises(SweepError, match=r"Trial 0 failed for .*File too large.* Fix it, and re-run the command"):
        state.result()
    assert runs_of("trial-0", state.state_details.flow_run_id) == 1
    (left,) = Study(study_of(config, space, digits)).trials
    assert (left.state, left.reason) == ("running", "")
    (tmp_path / "disk-is-full").unlink()
    (done,) = Study(trials(config, space, digits, 1, 1, None)).trials
    assert (done.state, done.settings) == ("complete", left.settings)


@pytest.mark.parametrize(
    ("error", "of_settings"),
    [
        (NonFiniteLossError("inf"), True),
        (OutOfMemoryError("full"), True),
        (ConfigError("the network can't be made of these options"), True),
        (ValueError("a network's own"), True),
        (ClusterError("room for 1"), False),
        (WorkersLostError("lost"), False),
        (DamagedError("not the bytes"), False),
        (OSError(errno.ENOSPC, "no space left"), False),
        (UnreachableError("away"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_settings_are_blamed_for_what_other_settings_may_do_better(error: Exception, of_settings: bool) -> None:
    assert is_of_settings(error) is of_settings


def test_settings_that_the_config_refuses_are_failed_trials_and_those_of_a_killed_sweep_too(
    digits: DatasetRef, empty_store: Path
) -> None:
    config = RetrainConfig.model_validate({"model": {"name": "vit", "heads": 4}, "training": {"seed": 2}})
    space = {"model.width": {"int": [16, 4000]}}  # with seed 2 the widths are 1325 and 525
    study = study_of(config, space, digits)
    begun = Study(study).draw(space, 2)
    run_trials(config, space, digits, 2, 1, None)
    ended = Study(study).trials
    assert ended[0].settings == begun.settings
    assert [trial.state for trial in ended] == ["failed", "failed"]
    assert all(f"4 does not divide {trial.settings['model.width']}" in trial.reason for trial in ended)


@pytest.mark.parametrize("resumed", [False, True], ids=["anew", "resumed"])
def test_a_trial_that_is_worse_than_the_median_is_pruned_and_its_process_is_gone(
    resumed: bool, server: None, digits: DatasetRef
) -> None:
    training = {"epochs": 3000, "patience": 2, "learning_rate": 1e-6, "seed": 5 + resumed}
    config = RetrainConfig.model_validate({"training": training})
    space = {"training.batch_size": {"choice": [512]}}
    study = study_of(config, space, digits)
    for number in range(5):  # five that were good from their first epoch on
        Study(study).draw(space, 0)
        for epoch in range(1, 6):
            Study(study).note_epoch(number, epoch, 0.1)
        Study(study).end(number, 1.0, 0.1)
    if resumed:  # a trial of the same settings has come to epoch 4, and this one knows nothing of it
        settings = configured(config, {"training.batch_size": 512, "training.epochs": 4})
        model = make(tasks.build_model, config.model, digits, config.training.seed, config.devices, None)
        how = settings.training, settings.augment, settings.finetune
        make(tasks.train_model, *how, model, digits, config.devices)
    forked.run([sys.executable, "-c", ""])  # starts what the trials are forks of
    before = processes()
    state = trials(config, space, digits, 6, 1, None, return_state=True)
    pruned = Study(study).trials[5]
    assert pruned.state == "pruned"
    assert len(pruned.curve) == 2, "the first epoch after the warm-up"
    assert task_runs(state.state_details.flow_run_id, 1) == {"trial-5": "Pruned"}
    assert processes() <= before
    epochs = [message for message in logs(state.state_details.flow_run_id) if message.startswith("epoch ")]
    assert not resumed or not epochs, "it went on at epoch 5"


@contextlib.contextmanager
def sweeping(config: RetrainConfig, data: DatasetRef, log: Path, until: str) -> Iterator[forked.Popen[bytes]]:
    """A sweep of two trials in a process of its own, one at a time, to be ended once it has logged ``until``."""
    script = f"""
from tests.flows.test_sweep import *
config = RetrainConfig.model_validate({config.model_dump(mode="json")!r})
data = DatasetRef.model_validate({data.model_dump(mode="json")!r})
trials(config, SPACE, data, 2, 1, None)
"""
    environment = {
        **os.environ,
        "LAYERFLOW_STORE": str(store.root()),
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PYTHONPATH": str(ROOT),
    }
    with log.open("w") as stream:
        command = [sys.executable, "-c", script]
        process = forked.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 120
        while until not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_interrupted_sweep_leaves_no_process_and_keeps_its_trial_open(
    server: None, digits: DatasetRef, tmp_path: Path
) -> None:
    config = RetrainConfig.model_validate({"training": {"epochs": 5000, "patience": 5000, "batch_size": 512}})
    with sweeping(config, digits, tmp_path / "log", "'trial-0' - epoch 1/5000") as interrupted:
        children = psutil.Process(interrupted.pid).children(recursive=True)
        interrupted.send_signal(signal.SIGINT)
        interrupted.wait(timeout=30)
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert gone
    assert not alive, "a trial outlives its sweep"
    (left,) = Study(study_of(config, plan(config, SPACE), digits)).trials
    assert (left.state, left.reason) == ("running", "")


@pytest.fixture
def stopped() -> Iterator[None]:
    """The sweep of this process is stopped."""
    stop_trials()
    yield
    is_stopped.clear()


def test_a_trial_that_was_about_to_start_when_its_sweep_was_stopped_does_not(
    digits: DatasetRef, empty_store: Path, stopped: None
) -> None:
    study = study_of(CONFIG, SPACE, digits)
    Study(study)
    before = processes()
    with pytest.raises(SweepError, match="It was stopped"), trial_process(0, CONFIG, digits, study):
        pass
    assert processes() <= before


def test_a_sweep_killed_in_a_trial_goes_on_there_and_repeats_nothing(
    server: None, digits: DatasetRef, tmp_path: Path
) -> None:
    config = RetrainConfig.model_validate({"training": {"epochs": 400, "patience": 400, "batch_size": 512}})
    with sweeping(config, digits, tmp_path / "log", "'trial-1' - epoch 1/400") as killed:
        children = psutil.Process(killed.pid).children()
        killed.kill()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive, "a trial outlives its sweep"
    study = study_of(config, plan(config, SPACE), digits)
    before = Study(study).trials
    assert [trial.state for trial in before] == ["complete", "running"]
    state = trials(config, SPACE, digits, 2, 1, None, return_state=True)
    after = Study(study).trials
    assert task_runs(state.state_details.flow_run_id, 1).keys() == {"trial-1"}
    assert after[0] == before[0]
    assert after[1].settings == before[1].settings
    assert (after[1].state, after[1].reason) == ("complete", "")
    assert len(after[1].curve) == 400
    messages = logs(state.state_details.flow_run_id)
    assert any("resuming at epoch" in message for message in messages), messages


class _Gone:
    """What stands for a task whose worker on the cluster is gone."""

    def _on_completed(self, then: Any) -> None:
        then(None)


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``losing(error)``: a cluster each of whose tasks ends with this error of Ray's."""
    ray, runners = pytest.importorskip("ray"), pytest.importorskip("prefect_ray.task_runners")

    def lose(error: Exception) -> None:
        def get(*arguments: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(ray, "get", get)
        future = runners.PrefectRayFuture
        submit = lambda task, inputs: future(uuid.uuid4(), _Gone())  # noqa: E731
        runner = lambda config, study, parallel, ray: contextlib.nullcontext(submit)  # noqa: E731
        monkeypatch.setattr(sys.modules["tasks.trials.schedule"], "_runner", runner)

    return lose


def test_a_trial_whose_worker_is_lost_stays_open_and_the_others_go_on(
    digits: DatasetRef, empty_store: Path, losing: Any
) -> None:
    from ray.exceptions import WorkerCrashedError

    losing(WorkerCrashedError())
    study = run_trials(CONFIG, SPACE, digits, 2, 1, "auto")
    left = Study(study).trials
    assert [trial.state for trial in left] == ["running", "running"]
    assert left[0].reason.startswith("its worker was lost: The worker died unexpectedly")
    with pytest.raises(TrialError, match=r"none of 2 is complete\. The first: its worker was lost"):
        choose_winner.fn(CONFIG, SPACE, study)
    Study(study).end(0, 1.0, 0.5)
    assert Study(study).trials[0].reason == ""


def test_a_node_that_can_run_no_trial_ends_the_sweep_with_the_last_line_of_what_it_says(
    digits: DatasetRef, empty_store: Path, losing: Any
) -> None:
    from ray.exceptions import RayTaskError

    said = "Traceback (most recent call last):\n  File \"x.py\", line 1\nModuleNotFoundError: No module named 'tasks'"
    losing(RayTaskError("run", said, ModuleNotFoundError("tasks"), pid=1, ip="10.0.0.2"))
    with pytest.raises(SweepError, match=r"One is not: ModuleNotFoundError: No module named 'tasks'; fix it"):
        run_trials(CONFIG, SPACE, digits, 2, 1, "auto")
    (left,) = Study(study_of(CONFIG, SPACE, digits)).trials
    assert left.state == "running"


def test_a_trial_on_a_machine_without_the_sweep_makes_no_other_one_there(digits: DatasetRef, empty_store: Path) -> None:
    study = study_of(CONFIG, SPACE, digits)
    with pytest.raises(SweepError, match=rf"must see the store of the sweep, and \S+ finds no {empty_store}/sweeps"):
        tasks.run_trial.fn(0, CONFIG, digits, study)
    assert not empty_store.exists()


def logs(flow_run_id: Any) -> list[str]:
    """What was logged in a flow run, once it has arrived."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    deadline = time.monotonic() + 15
    while True:
        with get_client(sync_client=True) as client:
            found = [each.message for each in client.read_logs(log_filter=chosen)]
        if any("Finished in state" in message for message in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_the_nodes_are_asked_whether_they_can_take_part_before_a_trial_begins(
    digits: DatasetRef, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_ray")
    asked: list[Any] = []

    def refuse(place: ray_cluster.Place, folder: Path) -> None:
        asked.append((place.store, place.network, folder.is_relative_to(empty_store / "sweeps"), folder.is_dir()))
        raise ClusterError("node-7 can't")

    monkeypatch.setattr(ray_cluster, "connect", lambda address, **settings: None)  # stands for a cluster
    monkeypatch.setattr(ray_cluster, "check_nodes", refuse)
    with pytest.raises(ClusterError, match="node-7"):
        run_trials(CONFIG, SPACE, digits, 2, 1, "10.0.0.1:6379")
    assert asked == [(empty_store, "mlp", True, True)]
    assert not Study.exists(study_of(CONFIG, SPACE, digits))


NOWHERE = StudyRef(folder="sweeps/none", monitor="val_loss", warm_up=1)


@pytest.mark.parametrize("auto", [False, True], ids=["named", "auto"])
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_sentence_within_seconds(
    auto: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        if auto:  # what Ray takes `auto` for
            monkeypatch.setenv("RAY_ADDRESS", address)
        said = r"auto \([\d.]+:\d+\)" if auto else address
        began = time.monotonic()
        with (
            pytest.raises(UnreachableError, match=f"must answer within 5 seconds. {said} does not"),
            _runner(CONFIG, NOWHERE, 1, "auto" if auto else address),
        ):
            pass
        assert time.monotonic() - began < 20
