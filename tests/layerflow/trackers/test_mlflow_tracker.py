"""Runs in MLflow, asked of MLflow's own server."""

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ConfigError, DamagedError, UnreachableError
from layerflow.extensions import Run
from layerflow.outcomes import Promotion, Retrained
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back
from tasks import tracking
from tests import forked
from tests.object_store import Proxy
from tests.servers import free_port, mlflow_started

if importlib.util.find_spec("mlflow") is None:  # to import it takes seconds
    pytest.skip("the extra mlflow is not installed: make mlflow", allow_module_level=True)

pytestmark = pytest.mark.process  # MLflow's server is one, since its database and its settings are those of a process

Ended = Callable[[Challenger, Promotion], Run]


@pytest.fixture(scope="module")
def mlflow_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of MLflow's server, with one database for all tests of the module."""
    with mlflow_started(tmp_path_factory.mktemp("mlflow")) as port:
        yield port


@pytest.fixture
def proxy(mlflow_port: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What the tracker asks, which can fail; the experiment has the test's name."""
    before_it = Proxy(mlflow_port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", before_it.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # on a busy machine
    yield before_it
    before_it.close()


@pytest.fixture
def tracker(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tracker's module, as in a new process; it never rests."""
    from layerflow.trackers import mlflow as tracker

    monkeypatch.setattr(tracker, "_REST", 0)
    tracker._known.cache_clear()
    return tracker


@pytest.fixture
def client(proxy: Proxy) -> Any:
    """MLflow's own client."""
    import mlflow

    return mlflow.MlflowClient(proxy.url)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Ended:
    """What the step `track_run` tells a tracker once a model was decided about."""
    told: list[Run] = []
    monkeypatch.setattr(tracking, "_tell", lambda name, run: told.append(run))

    def of(made: Challenger, promotion: Promotion) -> Run:
        config = RetrainConfig.model_validate({"extend": {"trackers": ["mlflow"]}, "training": {"epochs": 7}})
        tracking._track_run(config, Retrained(**made._asdict(), promotion=promotion))
        return told[-1]

    return of


@pytest.fixture
def run(first_run: Retrained, ended: Ended) -> Run:
    """The session's first run, which was published."""
    made = Challenger(*(getattr(first_run, part) for part in Challenger._fields))
    return ended(made, first_run.promotion)


def in_training(run: Run, first: int, last: int) -> Run:
    """What a tracker receives in the training of a run, from which earlier epochs are missing where it was resumed."""
    epochs = tuple({k: v for k, v in epoch.items() if k != "seconds"} for epoch in run.epochs[first - 1 : last])
    return run._replace(epochs=epochs, figures={}, cards={}, saved_model=None, decision={})


def recorded(client: Any, name: str) -> Any:
    """The one MLflow run of an experiment."""
    (found,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return found


def history(client: Any, found: Any) -> dict[str, dict[int, float]]:
    """The values of each metric of an MLflow run by step; one that has a step twice fails."""
    values: dict[str, dict[int, float]] = {}
    for name in found.data.metrics:
        logged = client.get_metric_history(found.info.run_id, name)
        values[name] = {metric.step: metric.value for metric in logged}
        assert len(logged) == len(values[name]), name
    return values


def test_a_run_is_recorded_with_all_that_is_known_of_it(
    tracker: Any,
    client: Any,
    run: Run,
    first_run: Retrained,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tracker.track(run)
    assert capfd.readouterr() == ("", "")
    found = recorded(client, request.node.name)
    assert found.info.status == "FINISHED"
    assert found.data.params["training.epochs"] == "7"
    assert found.data.params["training.batch_size"] == str(run.settings["training"]["batch_size"])
    epochs = {
        name: {int(each["epoch"]): each[name] for each in run.epochs} for name in run.epochs[0] if name != "epoch"
    }
    figures = {name: {len(run.epochs): value} for name, value in run.figures.items()}
    assert history(client, found) == epochs | figures
    (dataset,) = [each.dataset for each in found.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("digits", run.data["digest"][:36])
    assert json.loads(dataset.source)["digest"] == run.data["digest"]
    tags = {name: value for name, value in found.data.tags.items() if name.startswith("layerflow.")}
    assert (tags["layerflow.decision"], tags["layerflow.version"]) == ("promoted_first", "1")
    assert tags["layerflow.export_digest"] == first_run.export.digest
    assert found.data.tags["mlflow.note.content"].endswith("Version 1 of mlp-digits.")
    files = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert files == {"cards", "report.html", "settings.json"}
    cards = {each.path for each in client.list_artifacts(found.info.run_id, "cards")}
    assert cards == {f"cards/{name}.md" for name, text in run.cards.items() if text} >= {"cards/evaluation.md"}
    version = client.get_model_version_by_alias("mlp-digits", "champion")
    (output,) = found.outputs.model_outputs
    assert (version.source, version.run_id) == (f"models:/{output.model_id}", found.info.run_id)
    assert version.tags["layerflow.version"] == "1"
    of_the_model = {each.key: each.value for each in client.get_logged_model(output.model_id).metrics}
    assert of_the_model == run.figures


def test_a_second_identical_run_writes_nothing(tracker: Any, proxy: Proxy, run: Run) -> None:
    tracker.track(run)
    asked = len(proxy.requests)
    later = run._replace(decision={"code": "unchanged", "reason": "version 1 is this very model", "version": 1})
    tracker.track(later)
    written = [each for each in proxy.requests[asked:] if not re.match(r"GET |POST \S*/search$", each)]
    assert len(proxy.requests) > asked
    assert not written


def test_a_training_that_was_killed_and_resumed_is_one_run_with_each_epoch_once(
    tracker: Any, client: Any, run: Run, request: pytest.FixtureRequest
) -> None:
    for first, last in ((1, 1), (1, 3), (1, 4)):
        tracker.track(in_training(run, first, last))
    assert recorded(client, request.node.name).info.status == "RUNNING"
    tracker._known.cache_clear()  # a new process, which resumes at a checkpoint before the last epoch
    for last in (4, 5):
        tracker.track(in_training(run, 4, last))
    found = recorded(client, request.node.name)
    assert found.info.status == "RUNNING"
    assert list(history(client, found)["loss"]) == [1, 2, 3, 4, 5]
    tracker._known.cache_clear()
    tracker.track(run)
    found = recorded(client, request.node.name)
    assert found.info.status == "FINISHED"
    every = {epoch["epoch"] for epoch in run.epochs}
    steps = {name: set(values) for name, values in history(client, found).items() if not name.startswith("test_")}
    assert steps == dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "seconds"), every)


def test_an_epoch_in_between_is_one_request(tracker: Any, proxy: Proxy, run: Run) -> None:
    tracker.track(in_training(run, 1, 1))
    asked = len(proxy.requests)
    tracker.track(in_training(run, 1, 2))
    assert [each.rpartition("/")[2] for each in proxy.requests[asked:]] == ["log-batch"]


def test_in_training_the_tracker_rests_after_each_call_and_misses_no_epoch(
    tracker: Any,
    proxy: Proxy,
    client: Any,
    run: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker, "_REST", 1e9)
    tracker.track(in_training(run, 1, 1))
    asked = len(proxy.requests)
    tracker.track(in_training(run, 1, 2))
    assert len(proxy.requests) == asked
    tracker._known(proxy.url, request.node.name, run.id).rests_until = 0
    tracker.track(in_training(run, 1, 3))
    assert list(history(client, recorded(client, request.node.name))["loss"]) == [1, 2, 3]
    tracker.track(run)
    assert recorded(client, request.node.name).info.status == "FINISHED"


def test_of_two_processes_that_begin_at_once_the_first_one_s_run_stays(
    tracker: Any, client: Any, run: Run, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.track(in_training(run, 1, 1))
    first = recorded(client, request.node.name).info.run_id
    tracker._known.cache_clear()
    looks = [lambda *given: None]  # at which the other process has not begun yet
    oldest = tracker._oldest
    monkeypatch.setattr(tracker, "_oldest", lambda *given: (looks.pop() if looks else oldest)(*given))
    tracker.track(in_training(run, 1, 2))
    found = recorded(client, request.node.name)
    assert found.info.run_id == first
    assert list(history(client, found)["loss"]) == [1, 2]


def test_the_alias_follows_the_live_version_and_a_model_is_registered_once(
    tracker: Any,
    client: Any,
    contenders: dict[str, Challenger],
    decide: Callable[..., Promotion],
    ended: Ended,
) -> None:
    name = {"name": "moving"}

    def live() -> str:
        return str(client.get_model_version_by_alias("moving", "champion").version)

    def record(who: str) -> None:
        run = ended(contenders[who], decide(who, registry=name))
        tracker.track(run._replace(name="moving"))

    record("poor")
    assert live() == "1"
    record("good")
    assert live() == "2"
    roll_back("moving")
    record("good")  # kept: it was rolled back
    assert live() == "1"
    found = {each.version: each.tags["layerflow.version"] for each in client.search_model_versions("name = 'moving'")}
    assert found == {1: "3", 2: "2"} or found == {"1": "3", "2": "2"}


def test_a_model_that_a_person_approved_later_is_registered_by_the_next_run(
    tracker: Any, client: Any, contenders: dict[str, Challenger], decide: Callable[..., Promotion], ended: Ended
) -> None:
    name = {"name": "approved"}
    waiting = ended(contenders["poor"], decide("poor", registry=name))._replace(name="approved")
    waiting = waiting._replace(decision={"code": "waiting_for_approval", "reason": "asked", "version": None})
    promoted = client.search_model_versions("name = 'approved'")
    assert not promoted
    tracker.track(waiting)
    found = client.get_model_version_by_alias("approved", "champion")
    assert found.tags["layerflow.version"] == "1"


def test_mlflow_answers_like_the_export_without_layerflow(
    tracker: Any, proxy: Proxy, client: Any, run: Run, first_run: Retrained, tmp_path: Path
) -> None:
    """In a process of its own, in which nothing of layerflow can be imported."""
    import mlflow
    import tensorflow as tf

    tracker.track(run)
    images = np.array(images_and_labels(first_run.data, "test")[0])
    np.save(tmp_path / "images.npy", images, allow_pickle=False)
    done = forked.run(
        [
            *(sys.executable, forked.PROGRAMS / "asks_mlflow.py", "models:/mlp-digits@champion"),
            *(tmp_path / "images.npy", tmp_path / "answers.npz"),
        ],
        env={**os.environ, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    expected = tf.saved_model.load(run.saved_model).signatures["serving_default"](images=tf.constant(images))
    with np.load(tmp_path / "answers.npz", allow_pickle=False) as answers:
        assert set(answers) == {"probabilities", "class_id"}
        for name in answers:
            assert answers[name].dtype == expected[name].numpy().dtype
            np.testing.assert_array_equal(answers[name], expected[name].numpy())
    signature = mlflow.models.get_model_info("models:/mlp-digits@champion").signature
    (given,), gives = signature.inputs.inputs, {each.name: each for each in signature.outputs.inputs}
    assert (given.type, given.shape) == (np.dtype("uint8"), (-1, 8, 8, 1))
    assert {name: (each.type, each.shape) for name, each in gives.items()} == {
        "probabilities": (np.dtype("float32"), (-1, 10)),
        "class_id": (np.dtype("int64"), (-1,)),
    }


def test_a_large_image_is_left_out_of_the_model_without_a_word(
    tracker: Any,
    client: Any,
    run: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tracker.models, "_MOST_VALUES", 0)
    tracker.track(run)
    assert capfd.readouterr() == ("", "")
    (output,) = recorded(client, request.node.name).outputs.model_outputs
    assert "input_example.json" not in {each.path for each in client.list_logged_model_artifacts(output.model_id)}


def test_an_upload_that_broke_off_is_completed_and_no_second_model_is_made(
    tracker: Any, proxy: Proxy, client: Any, run: Run, request: pytest.FixtureRequest
) -> None:
    proxy.fail("403", "PUT .*saved_model.pb")
    with pytest.raises(ConfigError, match=r"MLflow at .* must accept what layerflow records"):
        tracker.track(run)
    proxy.heal()
    tracker.track(run)
    found = recorded(client, request.node.name)
    (model,) = client.search_logged_models([found.info.experiment_id])
    assert (model.status.name, found.info.status) == ("READY", "FINISHED")


@pytest.mark.parametrize("fault", ["503", "hang", "reset", "lost answer"])
def test_a_server_that_does_not_answer_is_given_up_in_one_sentence_and_the_next_call_completes_the_history(
    fault: Any,
    tracker: Any,
    proxy: Proxy,
    client: Any,
    run: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker.track(in_training(run, 1, 1))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.fail(fault, "POST .*log-batch")
    with pytest.raises(UnreachableError, match=rf"^MLflow at {proxy.url} must answer\. It does not \([\w ]+\)\.$"):
        tracker.track(in_training(run, 1, 2))
    proxy.heal()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    tracker._known.cache_clear()
    tracker.track(in_training(run, 1, 3))
    assert list(history(client, recorded(client, request.node.name))["loss"]) == [1, 2, 3]


def test_a_server_that_is_not_there_is_named(tracker: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError) as raised:
        tracker.track(run)
    assert re.fullmatch(
        r"MLflow at http://\*\*\*@127.0.0.1:\d+ must answer\. It does not \(Connection refused\)\.", str(raised.value)
    )


def test_a_deleted_experiment_is_named(tracker: Any, client: Any, run: Run, request: pytest.FixtureRequest) -> None:
    client.delete_experiment(client.create_experiment(request.node.name))
    with pytest.raises(ConfigError, match=r"It answers: .*must be in the 'active' state"):
        tracker.track(in_training(run, 1, 1))


def test_variables_of_mlflow_that_are_set_count_and_no_other_is_left(
    tracker: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    before = dict(os.environ)
    with tracker.asking(tracker.QUICK):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
    assert dict(os.environ) == before


def test_long_values_and_many_parameters_are_recorded(
    tracker: Any, client: Any, run: Run, request: pytest.FixtureRequest
) -> None:
    many = {f"field_{number}": number for number in range(250)}
    settings = {"training": {"text": "x" * 7000, "weights": {"a": 1}, "none": None}, "many": many}
    tracker.track(in_training(run, 1, 1)._replace(settings=settings))
    found = recorded(client, request.node.name).data.params
    assert found["training.text"] == "x" * 6000
    assert found["training.weights"] == '{"a": 1}'
    assert len(found) == 252
    tracker._known.cache_clear()
    tracker.track(in_training(run, 1, 1)._replace(settings={"many": {"field_0": "other"}}))  # they can't be changed
    assert recorded(client, request.node.name).data.params == found


def test_an_export_that_was_changed_is_not_uploaded(tracker: Any, proxy: Proxy, run: Run, tmp_path: Path) -> None:
    assert run.saved_model
    shutil.copytree(run.saved_model, tmp_path / "saved_model")
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(DamagedError, match=r"saved_model\.pb was changed"):
        tracker.track(run._replace(saved_model=tmp_path / "saved_model"))
    assert not [each for each in proxy.requests if "saved_model.pb" in each]
