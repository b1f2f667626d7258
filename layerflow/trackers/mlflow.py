"""The tracker ``mlflow`` of ``extend.trackers``: each training is one run of an MLflow server, with nothing twice."""

import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from layerflow.cards.report import page
from layerflow.extensions import Run
from layerflow.registry import versions
from layerflow.trackers import mlflow_models as models
from layerflow.trackers.mlflow_server import LARGE, QUICK, address, asking
from layerflow.trackers.packages import require

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as Recorded

# As soon as a run begins, and not hours later.
require("mlflow", "mlflow", "pandas")
address()

#: Tags of an MLflow run: the training, by which it is found again, and the digest of all that is recorded at the end.
_TRAINING, _ALL = "layerflow.training", "layerflow.recorded"
#: How many parameters and metrics MLflow takes at once; letters of a metric's name, and of a data set's digest.
_PARAMETERS, _METRICS, _NAME, _DIGEST = 100, 500, 250, 36
#: In training, how much longer than a call the tracker rests after it: a slow server takes a tenth of the time at most.
_REST = 9
#: Tag of an experiment by which MLflow shows the pages that are about training.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class _Known:
    """The MLflow run of a training, and the steps of each metric that it has, as far as this process knows."""

    def __init__(self) -> None:
        self.recorded: Recorded | None = None
        self.steps: dict[str, set[int]] = {}
        self.rests_until = 0.0


def track(run: Run) -> None:
    """Record what is new of a run on the MLflow server of ``MLFLOW_TRACKING_URI``.

    The experiment is that of ``MLFLOW_EXPERIMENT_NAME``, or has the model's name. All retries, resumptions and
    repetitions of a training are one MLflow run, which gets each epoch once.

    Raises:
        ConfigError: If the server refuses something.
        UnreachableError: If the server does not answer within seconds. That is retried.
        DamagedError: If a file of the export is not as it was written.

    Example:
        >>> track(run)
    """
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.name
    known, ended = _known(address(), experiment, run.id), run.saved_model is not None
    if not ended and time.monotonic() < known.rests_until:
        return
    with asking(QUICK) as client:
        began = time.monotonic()
        if ended or known.recorded is None:  # in between, an epoch is one request
            known.recorded, known.steps = _begin(client, experiment, run), {}
        recorded = known.recorded
        _log_epochs(client, recorded, run.epochs, known.steps)
        known.rests_until = time.monotonic() + _REST * (time.monotonic() - began)
    if ended:
        _end(recorded, run)


@functools.lru_cache(maxsize=8)
def _known(server: str, experiment: str, training: str) -> _Known:
    return _Known()


def _begin(client: "MlflowClient", experiment: str, run: Run) -> "Recorded":
    """The MLflow run of a training, with the parameters and the data. It is made if it is missing."""
    from mlflow.entities import Param

    place = _experiment(client, experiment)
    found = _oldest(client, place, run.id)
    if found is None:
        tags = {_TRAINING: run.id, "mlflow.source.name": "layerflow", "mlflow.source.type": "JOB"}
        made = client.create_run(place, tags=tags, run_name=f"{run.name} {run.id[:8]}")
        found = _oldest(client, place, run.id) or made
        if found.info.run_id != made.info.run_id:  # two processes at once
            client.delete_run(made.info.run_id)
    known = found.data.params
    new = [(name, value) for name, value in _parameters(run.settings) if name not in known]  # they can't be changed
    for batch in _batches(new, _PARAMETERS):
        client.log_batch(found.info.run_id, params=[Param(name, value) for name, value in batch])
    _log_data(client, found, run.data)
    return found


def _experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return client.create_experiment(name, tags=_KIND)
    except MlflowException as error:  # another process was faster
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or not (found := client.get_experiment_by_name(name)):
            raise
        return str(found.experiment_id)


def _oldest(client: "MlflowClient", experiment: str, training: str) -> "Recorded | None":
    found = client.search_runs([experiment], f"tags.`{_TRAINING}` = '{training}'")
    return min(found, key=lambda each: (each.info.start_time, each.info.run_id), default=None)


def _parameters(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The settings by group and name, such as ``training.epochs``; those that are empty are left out."""
    for group, fields in settings.items():
        for field, value in (fields if isinstance(fields, dict) else {"": fields}).items():
            if value not in (None, "", [], {}):
                text = value if isinstance(value, str) else json.dumps(value)
                yield f"{group}.{field}".rstrip("."), text  # MLflow cuts what is too long


def _log_data(client: "MlflowClient", recorded: "Recorded", data: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, digest = _dataset(data)
    inputs = recorded.inputs.dataset_inputs if recorded.inputs else []
    if (name, digest) in [(each.dataset.name, each.dataset.digest) for each in inputs]:
        return
    source = {each: data[each] for each in ("name", "version", "digest")}
    profile = {**data["counts"], "classes": len(data["classes"])}
    dataset = Dataset(name, digest, "layerflow", json.dumps(source), profile=json.dumps(profile))
    client.log_inputs(recorded.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _dataset(data: dict[str, Any]) -> tuple[str, str]:
    """Name and digest of the data, as MLflow has them."""
    return data["name"], data["digest"][:_DIGEST]


def _log_epochs(
    client: "MlflowClient", recorded: "Recorded", epochs: Iterable[dict[str, float]], steps: dict[str, set[int]]
) -> None:
    """Log each figure of each epoch that ``steps`` lacks, and add it there."""
    from mlflow.entities import Metric

    run, now, new = recorded.info.run_id, int(time.time() * 1000), list["Metric"]()
    for epoch in epochs:
        for name in (each for each in epoch if each != "epoch"):
            key = _name(name)
            if key not in steps:
                steps[key] = {metric.step for metric in client.get_metric_history(run, key)}
            if epoch["epoch"] not in steps[key]:
                new.append(Metric(key, epoch[name], now, int(epoch["epoch"])))
    for batch in _batches(new, _METRICS):
        client.log_batch(run, metrics=batch)
        for metric in batch:
            steps[metric.key].add(metric.step)


def _end(recorded: "Recorded", run: Run) -> None:
    """Record what is known once a model was decided about, and close the run; then see to the registered models."""
    assert run.saved_model
    digest, version = models.digest_of(run.saved_model), run.decision.get("version")
    # Later runs find a version unchanged, which is no other decision about it.
    everything = _digest_of([run.settings, run.figures, run.cards, digest, version or run.decision])
    is_done = recorded.info.status == "FINISHED" and recorded.data.tags.get(_ALL) == everything
    with asking(LARGE) as client:
        model = models.log_model(client, recorded, run, digest)
        if not is_done:
            _log_files(client, recorded, run)
            _log_figures(client, recorded, run, model)
            _log_decision(client, recorded, run, {models.DIGEST: digest, _ALL: everything})
            client.set_terminated(recorded.info.run_id, "FINISHED")
    with asking(QUICK) as client:
        _register(client, run, model)


def _log_files(client: "MlflowClient", recorded: "Recorded", run: Run) -> None:
    """Log the cards, as Markdown and on one page with their pictures, and all settings."""
    cards = {name: text for name, text in run.cards.items() if text}
    for name, text in cards.items():
        client.log_text(recorded.info.run_id, text, f"cards/{name}.md")
    client.log_text(recorded.info.run_id, page(run.name, cards, ""), "report.html")
    client.log_dict(recorded.info.run_id, run.settings, "settings.json")


def _log_figures(client: "MlflowClient", recorded: "Recorded", run: Run, model: "LoggedModel") -> None:
    """Log the figures of the test images, with the model and the data that they are of, where they are new."""
    from mlflow.entities import Metric

    run_id, now = recorded.info.run_id, int(time.time() * 1000)
    before, last = recorded.data.metrics, len(run.epochs)
    figures = {_name(name): value for name, value in run.figures.items() if before.get(_name(name)) != value}
    client.log_batch(
        run_id,
        [Metric(name, figures[name], now, last, model.model_id, *_dataset(run.data), run_id) for name in figures],
    )


def _log_decision(client: "MlflowClient", recorded: "Recorded", run: Run, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    version = run.decision.get("version")
    if version is None or recorded.data.tags.get(models.VERSION) != str(version):
        published = f"Version {version} of {run.name}." if version else "Not published."
        tags["mlflow.note.content"] = f"{run.decision['reason']}\n\n{published}"
        tags["layerflow.decision"] = run.decision["code"]
        if version or models.VERSION in recorded.data.tags:  # of an earlier decision
            tags[models.VERSION] = str(version or "")
    client.log_batch(recorded.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _register(client: "MlflowClient", run: Run, ours: "LoggedModel") -> None:
    """Register the version that was published, and the live one, and let the alias name the live one.

    The live one can be of another run: a person approved it since, or a rollback restored it.
    """
    live, decided = next(iter(versions.numbers(run.name)), None), run.decision.get("version")
    for number in dict.fromkeys([decided, live]):
        digest = _digest_of_version(run.name, number) if number else None
        if number and digest:
            known = models.logged(client, ours.experiment_id, digest)
            found = models.register(client, run.name, known or (ours if number == decided else None), digest, number)
            if number == live and found:
                models.point_at(client, run.name, found)


def _digest_of_version(name: str, version: int) -> str | None:
    """The digest of the export in a version, or nothing if that is not as it was published."""
    receipt = versions.receipt_of(name, version)
    return str(receipt["export"]["digest"]) if receipt and not versions.damage(name, version) else None


def _digest_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _name(name: str) -> str:
    """A name of letters that MLflow takes."""
    return re.sub(r"[^\w.\- :/]", "_", name)[:_NAME]


def _batches(items: list[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
