"""How every step runs: what is cached, what is retried, and what is said when it fails.

| kind | examples | what happens |
|---|---|---|
| heals by itself | network, `OSError`, `tf.errors.UnavailableError`, a lock held | retried, back-off with jitter |
| does not heal | wrong config, unknown dataset, wrong checksum, NaN loss, out of memory, disk full | fails at once |

The table is ``layerflow.errors.heals``. A step's result lives with its artifact, in the store; the path of Prefect's
record is the cache key, so that the same inputs and the same code are `Cached`, and a deleted folder is made again.
"""

import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run

from layerflow import artifacts, store, user_code
from layerflow.cards.markdown import code
from layerflow.code_digest import code_digest
from layerflow.config import RetrainConfig
from layerflow.data import image_folder, source_key
from layerflow.errors import LayerflowError, heals, mask
from layerflow.records import DatasetRef, Profile, Record
from layerflow.registry import publishing, versions
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Record)

#: Seconds before each retry: long enough for a connection to come back, short enough that a machine that has none
#: hears so within half a minute.
RETRY_DELAYS = [1.0, 3.0, 9.0]


def result_storage() -> Path:
    """Where the flow's tasks keep Prefect's records of their results: the store, beside the artifacts."""
    return store.root()


def sweep(name: str) -> None:
    """Remove what dead runs left in the store and among the versions of the model ``name``."""
    store.sweep()
    publishing.sweep(name)


def data_in_service(name: str, data: DatasetRef) -> Profile | None:
    """What the data were like on which the model in service was trained, if there is one that was trained on others."""
    return versions.profile_in_service(name, data.digest)


def card_shown(kind: str, description: str) -> Callable[[Record], None]:
    """What a step does then: show its card under the kind, model and data of the run."""

    def then(record: Record) -> None:
        config = _config()
        name = f"{kind}-{config.registry_name}" if config else kind
        show_card(name, store.path(record.card).read_text(encoding="utf-8"), description)

    return then


def show_card(key: str, card: str, description: str, of: RetrainConfig | None = None, again: bool = True) -> None:
    """Show a card, Markdown, among the run's artifacts in the UI.

    Args:
        of: The settings that it is of; default: those of the flow run.
        again: Whether it is to end with the command that retrains with them.
    """
    if TaskRunContext.get() is None and FlowRunContext.get() is None:  # called without Prefect
        return
    config = of or _config()
    if again and config:
        card += f"\nTo reproduce: {code(f'layerflow retrain {config.as_flags}')}\n"
    key = re.sub("[^a-z0-9]+", "-", key.lower()).strip("-")
    try:
        create_markdown_artifact(key=key, markdown=card, description=description)
    except Exception as error:  # whatever it is: a decision that was carried out must not be retried for its picture
        _ours.warning("the card %s can't be shown: %s", key, error)


def _config() -> RetrainConfig | None:
    """The settings of the flow run, if it is one of `retrain`."""
    config = (flow_run.parameters or {}).get("config")
    return config if isinstance(config, RetrainConfig) else None


def tell(what: str, name: str, details: dict[str, Any]) -> None:
    """Emit the event ``layerflow.model.<what>`` about the model ``name``, on which users hang automations."""
    resource = {"prefect.resource.id": f"layerflow.model.{name}", "prefect.resource.name": name}
    emit_event(event=f"layerflow.model.{what}", resource=resource, payload=details)


def step(
    name: str,
    run_name: str,
    *,
    then: Callable[[Any], None] = lambda record: None,
    whole: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Make a Prefect task of a function whose last parameter, ``folder``, is where it puts what it makes.

    Callers do not pass ``folder``: the store gives it, and the step's record is what the task returns.

    Args:
        name: Name of the task, and of its folder in the store.
        run_name: Template of the task run's name, such as ``train-{model.name}-on-{data.name}``.
        then: Called with the step's record when the task runs, and so not where Prefect finds it `Cached`; may raise
            what must end the run.
        whole: Inputs of which every field counts, and not the digest alone; of the devices, what changes bits.
    """

    def decorate(work: Callable[..., R]) -> Task[..., R]:
        work.whole = whole  # type: ignore[attr-defined]
        kind = inspect.signature(work).return_annotation

        @functools.wraps(work)
        def in_store(*args: Any, **kwargs: Any) -> R:
            record = _make(name, work, inspect.signature(in_store).bind(*args, **kwargs).arguments)
            then(record)
            return record

        parameters = [each for each in inspect.signature(work).parameters.values() if each.name != "folder"]
        in_store.__signature__ = inspect.Signature(parameters, return_annotation=kind)  # type: ignore[attr-defined]
        return as_task(in_store, name, run_name, StoreCache(step=name, work=work))

    return decorate


def as_task(work: Callable[P, T], name: str, run_name: str, cache: CachePolicy = NO_CACHE) -> Task[P, T]:
    """Make a Prefect task of ``work`` with the policy that all steps share.

    It has no tags: for each tag a task asks the server for a concurrency slot before it starts, and fails if the
    server is away at that moment.
    """
    return task(
        name=name,
        task_run_name=run_name,
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=RETRY_DELAYS,
        retry_jitter_factor=0.3,
        retry_condition_fn=_can_heal,
        cache_policy=cache,
        persist_result=cache is not NO_CACHE,
        result_serializer="json",
        cache_result_in_memory=False,  # the record on disk is the truth: someone may delete it
        on_failure=[_forget_failure],
    )(work)


@dataclass
class StoreCache(CachePolicy):
    """Prefect's record of a step's result lies in the step's folder: ``<store>/<step>/<key>/result.json``."""

    step: str = ""
    work: Callable[..., Any] | None = None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """The path of the record, absolute: it must not matter when ``LAYERFLOW_STORE`` was set."""
        image_folder.forget()
        target = store.folder_of(self.step, key_of(self.work, inputs))
        # Before Prefect reads its record: a damaged artifact is set aside, a record that disagrees with ours removed.
        artifacts.sound(target)
        return str(target / "result.json")


def key_of(work: Callable[..., Any] | None, inputs: dict[str, Any], listed: bool = False) -> str:
    """Digest of the inputs and of the code that the step runs.

    ``listed``: a folder of images is as it was listed last, which was when Prefect asked for the key of this very run.
    """
    assert work
    whole = getattr(work, "whole", ())
    content: list[Any] = [code_digest(Path(inspect.getfile(inspect.unwrap(work))))]
    for name, value in inputs.items():
        if isinstance(value, DataConfig):
            content.append(
                source_key.identity(value, image_folder.listed(value.path) if value.path and listed else None)
            )
        elif isinstance(value, DevicesConfig):
            content.append(value.arithmetic if name in whole else None)
        else:
            content.append(value.model_dump(mode="json") if name in whole else _identity(value))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def make(step: Task[P, R], *inputs: Any) -> R:
    """What a call of ``step`` would give, made or found without Prefect, and without what is done with it then."""
    cache = step.cache_policy
    assert isinstance(cache, StoreCache)
    assert cache.work
    return _make(cache.step, cache.work, inspect.signature(step.fn).bind(*inputs).arguments)


def _make(name: str, work: Callable[..., R], inputs: dict[str, Any]) -> R:
    for value in inputs.values():
        if isinstance(value, Record):
            artifacts.check_record(value)
    kind = inspect.signature(work).return_annotation
    try:
        return artifacts.make(
            name, key_of(work, inputs, listed=True), kind, lambda target: work(**inputs, folder=target)
        )
    except Exception as error:
        if not isinstance(error, LayerflowError | OSError) and not heals(error) and (mistake := user_code.blame(error)):
            raise mistake from error
        raise
    finally:
        image_folder.forget()


def cached(step: Task[P, R], *inputs: Any) -> R | None:
    """The record that a call of ``step`` with these inputs would find, or nothing if it would run; it runs nothing."""
    cache = step.cache_policy
    if not isinstance(cache, StoreCache):
        return None
    arguments = inspect.signature(step.fn).bind(*inputs).arguments
    return artifacts.find(cache.step, key_of(cache.work, arguments), inspect.signature(step.fn).return_annotation)


def _identity(value: Any) -> Any:
    if isinstance(value, Record):
        return value.identity
    if isinstance(value, ModelConfig) and user_code.is_own(value.name):
        return [value.model_dump(mode="json"), user_code.code_of(value.name)]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _can_heal(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and heals(error)


def forget_failure(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """What a flow does that failed: its state says it all."""
    _remove_result(state)


def _forget_failure(task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
    _remove_result(state)


def _remove_result(state: State[Any]) -> None:
    """Remove the file in which Prefect persists an exception."""
    metadata = getattr(state.data, "metadata", None)
    if metadata and metadata.storage_key:
        (store.root() / metadata.storage_key).unlink(missing_ok=True)


class _ToRunLogger(logging.Handler):
    """Hands what ``layerflow`` logs to the logger of the task run, so that it stands in the UI."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            get_run_logger().log(record.levelno, mask(record.getMessage()))
        except MissingContextError:
            logging.getLogger("prefect").log(record.levelno, mask(record.getMessage()))


def _masked(record: logging.LogRecord) -> bool:
    """Take the secrets of addresses out of what is logged."""
    if record.exc_info:
        record.exc_text = mask(logging.Formatter().formatException(record.exc_info))
    record.msg, record.args = mask(record.getMessage()), None
    return True


class OnConsole(logging.Filter):
    """What a terminal or a worker's log shows of a run; the server is sent all of it, and before.

    Attributes:
        everything: Whether it shows every line and every traceback.
        lowest: Level of the least important line that it shows.
        links: Whether it shows links to the server; false where the server ends with the run.
    """

    everything, lowest, links = False, logging.NOTSET, True

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback of an error that says in one sentence what to do, and Prefect's word for every hook."""
        if self.everything:
            return True
        if record.exc_info and isinstance(record.exc_info[1], LayerflowError | OSError):
            record.exc_info = record.exc_text = None
        if record.levelno < self.lowest or (record.levelno <= logging.INFO and record.funcName == "call_hooks"):
            return False
        return self.links or not record.getMessage().startswith("View at ")


#: The one filter of the console; the command line sets how much it shows.
console = OnConsole()
_ours = logging.getLogger("layerflow")
_ours.setLevel(logging.INFO)
_ours.addHandler(_ToRunLogger())
_ours.propagate = False
for _handler in logging.getLogger().handlers:
    if isinstance(_handler, PrefectConsoleHandler):
        _handler.addFilter(console)
for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_masked)
