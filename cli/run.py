"""Running the flows from the command line."""

import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from cli.prefect_server import configured_url, ends_with, ensure_answering, start_unless_configured
from cli.terminal import Output, quiet_stderr, set_up_console
from layerflow import store, user_code
from layerflow.config import RetrainConfig
from layerflow.extras import require_ray
from layerflow.outcomes import Retrained, RolledBack
from layerflow.records import DatasetRef
from layerflow.registry import first_weights, versions
from layerflow.registry.signing import require_signer
from layerflow.settings.gate import SignConfig
from layerflow.sweeps.outcomes import SweepOutcome
from layerflow.sweeps.space import plan

T = TypeVar("T")

#: Seconds for the last states to reach the server's database (seen: 0.1 to 1).
_SETTLE_SECONDS = 15


class RetrainRun(NamedTuple):
    """What a run made, and how its steps went: ``{step: {"state": str, "seconds": float}}``."""

    result: Retrained
    flow_run: str
    steps: dict[str, dict[str, Any]]


def run_retrain(config: RetrainConfig, output: Output, refresh: bool = False) -> RetrainRun:
    """Run the flow once, on the Prefect server that is configured or else on an embedded one."""
    require_ray(config.training)
    require_signer(config.registry.sign)
    return _on_a_server(lambda: _prepare(config, refresh), lambda: _run(config, refresh), output)


class SweepRun(NamedTuple):
    """What a sweep made, and how the retraining with its best settings went."""

    outcome: SweepOutcome
    retraining: RetrainRun


def run_sweep(
    config: RetrainConfig, space: Any, trials: int, parallel: int, ray: str | None, output: Output
) -> SweepRun:
    """Run the flow `sweep` once, as `run_retrain` runs its flow."""
    require_ray(config.training)
    require_signer(config.registry.sign)
    planned = plan(config, space, ray)
    return _on_a_server(lambda: _prepare_data(config), lambda: _sweep(config, planned, trials, parallel, ray), output)


def run_rollback(name: str, to: int | None, sign: SignConfig) -> RolledBack:
    """Run the flow `rollback` where a Prefect server is configured, which tells the webhook; else roll back without."""
    from layerflow.registry.rollback import roll_back, target_of

    if (url := configured_url()) is None:
        return roll_back(name, to, signer=sign)
    target_of(name, to)  # refused before there is a run
    ensure_answering(url)
    from flows.rollback import rollback

    return _by_hand(rollback)(name, to, sign)


def _by_hand(flow: Any) -> Any:
    """The flow, tagged in a hook: `tags()` around it would tag its tasks too, which `as_task` says the cost of."""
    return flow.with_options(on_running=[_tag])


def _tag(flow: Any, flow_run: Any, state: Any) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=["layerflow", "by-hand"])


def _on_a_server(prepare: Callable[[], None], run: Callable[[], T], output: Output) -> T:
    """Prepare while an embedded server starts, where none is configured, and run."""
    store.ensure_writable()
    embedded = start_unless_configured()
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    set_up_console(output, embedded is not None)
    prepare()
    if embedded is None:
        return run()
    embedded.wait()
    updates = {
        PREFECT_API_URL: embedded.url,
        PREFECT_API_AUTH_STRING: embedded.password,
        PREFECT_CLIENT_MAX_RETRIES: 5,  # Prefect's default: nobody starts a server of one run again
        # No heartbeats: nobody watches a server of one run, and the end of their thread costs up to a second.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(updates=updates), ends_with(embedded):
        return run()


def _prepare(config: RetrainConfig, refresh: bool) -> None:
    """While the server starts: check the data's name and mirror, and import TensorFlow, where they will be needed."""
    import tasks
    from tasks.caching import cached
    from tasks.verify_export import verifier

    data = None if refresh else cached(tasks.load_data, config.data, config.devices)
    if data and _is_exported(config, data):
        return
    with quiet_stderr():
        import tensorflow  # noqa: F401

        from layerflow.data.load import check
        from layerflow.devices import set_up

        set_up(config.devices_for_model)
    _check_own(config)
    if data is None:
        check(config.data)
    _check_classes(config, data)
    verifier.start()


def _prepare_data(config: RetrainConfig) -> None:
    """While the server starts: check the data's name and mirror, unless they are there, and import TensorFlow."""
    import tasks
    from tasks.caching import cached

    with quiet_stderr():
        from layerflow.data.load import check
        from layerflow.devices import set_up

        set_up(config.devices_for_model)  # the best one is evaluated and exported here
    _check_own(config)
    data = cached(tasks.load_data, config.data, config.devices)
    if data is None:
        check(config.data)
    _check_classes(config, data)


def _check_classes(config: RetrainConfig, data: DatasetRef | None) -> None:
    """Refuse classes that the checks would stop, before there is a run, where they are known.

    Raises:
        DataError: If a class of the model in service is gone, or one is new, at the level `stop`.
    """
    from layerflow.data import image_folder
    from layerflow.data.validation import require_classes

    if data:
        now = data.classes
    elif config.data.path:
        now = image_folder.listed(config.data.path, config.data.slices_file).classes
    else:  # TensorFlow Datasets may have to prepare them first
        return
    if before := versions.profile_in_service(config.registry_name):
        require_classes(config.checks, config.data.title, before.classes, now)


def _check_own(config: RetrainConfig) -> None:
    """Refuse a custom network, loss, metric or callback that can't be imported, and weights that can't be had."""
    if user_code.is_own(config.model.name):
        user_code.maker_of(config.model.name)
    for setting, name in config.training.own_code:
        user_code.package_digest(name, setting)
    first_weights.check(config)
    from tasks.extensions import extensions_of  # with Prefect, which only runs need

    extensions_of(config.extend)


def _is_exported(config: RetrainConfig, data: DatasetRef) -> bool:
    """Whether every step that needs TensorFlow is done already."""
    import tasks
    from tasks.caching import cached

    devices = config.devices_for_model
    with quiet_stderr():  # KerasHub says which presets it has, and imports TensorFlow
        weights = first_weights.first_weights(config, data.image_shape[:2])
    model = cached(tasks.build_model, config.model, data, config.training.seed, devices, weights)
    trained = model and cached(
        tasks.train_model, config.training, config.augment, config.finetune, model, data, devices
    )
    if trained is None:
        return False
    evaluation = cached(tasks.evaluate_model, config.export, trained, data, devices)
    return bool(evaluation and cached(tasks.export_model, trained, evaluation.serving, data, devices))


def _run(config: RetrainConfig, refresh: bool) -> RetrainRun:
    from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings

    from flows.retrain import retrain

    with temporary_settings(updates={PREFECT_TASKS_REFRESH_CACHE: True} if refresh else {}):
        state = _by_hand(retrain)(config, return_state=True)
    result = state.result()
    return RetrainRun(result, *_read_steps(retrain, config, state.state_details.flow_run_id))


def _sweep(config: RetrainConfig, space: Any, trials: int, parallel: int, ray: str | None) -> SweepRun:
    from flows.retrain import retrain
    from flows.sweep import sweep

    state = _by_hand(sweep)(config, space, trials, parallel, ray, return_state=True)
    outcome = state.result()
    child = _child_of(state.state_details.flow_run_id)
    return SweepRun(outcome, RetrainRun(outcome.retrained, *_read_steps(retrain, outcome.result.config, child)))


def _child_of(flow_run_id: Any) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=below)[0].id


def _read_steps(flow: Any, config: RetrainConfig, flow_run_id: Any) -> tuple[str, dict[str, dict[str, Any]]]:
    """The run's name and its task runs, in the order they ran, once the server has recorded their last states."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    names = {task.task_key: task.name for task in _tasks_of(flow, config)}
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + _SETTLE_SECONDS
    with get_client(sync_client=True) as client:
        name = client.read_flow_run(flow_run_id).name
        while True:
            runs = client.read_task_runs(flow_run_filter=chosen)
            if len(runs) >= len(names) and all(run.state and run.state.is_final() for run in runs):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    runs.sort(key=lambda run: str(run.start_time))
    return name, {
        names[run.task_key]: {
            "state": run.state_name,
            "seconds": round(run.total_run_time.total_seconds(), 3),
        }
        for run in runs
    }


def _tasks_of(flow: Any, config: RetrainConfig) -> list[Any]:
    """The tasks that the flow's function calls, each once: so many runs the server will know."""
    from prefect import Task

    found = [each for each in inspect.getclosurevars(flow.fn).globals.values() if isinstance(each, Task)]
    extend = config.extend
    wanted = {  # of the steps that run only where something asks for them
        **{"convert_model": config.formats, "verify_formats": config.formats, "own_checks": extend.checks},
        **{"own_metrics": extend.metrics, "track_run": extend.trackers, "hand_over": extend.publishers},
    }
    return [each for each in found if wanted.get(each.name, True)]
