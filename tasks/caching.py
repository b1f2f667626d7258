"""Which steps are cached: a step's result lies with its artifact, in the store, under a key of its inputs and its code.

The path of Prefect's record is the cache key, so that the same inputs and the same code are `Cached`, and a deleted
folder is made again.
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
from typing import Any, TypeVar, cast

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE
from pydantic import BaseModel

from layerflow import artifacts, step_inputs, store, user_code
from layerflow.code_digest import code_of
from layerflow.data import image_folder, source_key
from layerflow.errors import LayerflowError, heals, printed
from layerflow.models.network_code import network_code
from layerflow.records import ModelRef, Record, TrainedRef
from layerflow.registry import candidates, publishing, sharing
from layerflow.remote import mirror
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.checks import ChecksConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.export import ExportConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from tasks import remote
from tasks.policy import P, as_task

R = TypeVar("R", bound=Record)
log = logging.getLogger("layerflow")
#: By what name users know the settings that a step is given.
_GROUPS: dict[type, str] = {
    DataConfig: "data",
    ChecksConfig: "checks",
    ModelConfig: "model",
    TrainingConfig: "training",
    AugmentConfig: "augment",
    FinetuneConfig: "finetune",
    ExportConfig: "export",
    DevicesConfig: "devices",
}
#: Changes that a log line names.
_MOST_CHANGES = 3


def result_storage() -> Path:
    """Where the flow's tasks keep Prefect's records of their results: the store, beside the artifacts."""
    return store.root()


def remove_leftovers(name: str) -> None:
    """Remove what dead runs left in the store and among the versions and candidates of the model ``name``.

    With a bucket, first upload what earlier runs could not, and take over what other machines published.
    """
    store.remove_leftovers()
    mirror.flush()
    sharing.refresh(name)
    publishing.remove_leftovers(name)
    candidates.remove_leftovers(name)


def step(
    name: str,
    run_name: str,
    *,
    on_result: Callable[[Any], None] = lambda record: None,
    hash_all_fields_of: tuple[str, ...] = (),
    hash_also: tuple[str, ...] = (),
    not_hashed: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Make a Prefect task of a function whose last parameter, ``folder``, is where it puts what it makes.

    Callers do not pass ``folder``: the store gives it, and the step's record is what the task returns. A keyword-only
    parameter changes nothing that the step makes: it is not part of the key, and only ``make`` passes it.

    Args:
        name: Name of the task, and of its folder in the store.
        run_name: Template of the task run's name, such as ``train-{model.name}-on-{data.name}``.
        on_result: Called with the step's record when the task runs, and so not where Prefect finds it `Cached`; may
            raise what must end the run.
        hash_all_fields_of: Inputs of which every field counts, and not the digest alone; of the devices, what changes
            bits.
        hash_also: Fields that count beside the digest of an input, such as ``data.slices_digest``.
        not_hashed: Inputs that are not part of the key: they say where something is that another input has the digest
            of.
    """

    def decorate(work: Callable[..., R]) -> Task[..., R]:
        work.hash_all_fields_of, work.hash_also = hash_all_fields_of, hash_also  # type: ignore[attr-defined]
        work.not_hashed = not_hashed  # type: ignore[attr-defined]
        kind = inspect.signature(work).return_annotation

        @functools.wraps(work)
        def in_store(*args: Any, **kwargs: Any) -> R:
            record = _make(name, work, inspect.signature(in_store).bind(*args, **kwargs).arguments)
            on_result(record)
            return record

        parameters = [
            each
            for name, each in inspect.signature(work).parameters.items()
            if name != "folder" and each.kind is not each.KEYWORD_ONLY
        ]
        in_store.__signature__ = inspect.Signature(parameters, return_annotation=kind)  # type: ignore[attr-defined]
        return as_task(in_store, name, run_name, StoreCache(step=name, work=work))

    return decorate


@dataclass
class StoreCache(CachePolicy):
    """Prefect's record of a step's result is in the step's folder: ``<store>/<step>/<key>/result.json``."""

    step: str = ""
    work: Callable[..., Any] | None = None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """The path of the record, absolute: it must not matter when ``LAYERFLOW_STORE`` was set."""
        image_folder.forget()
        kind = inspect.signature(self.work).return_annotation if self.work else Record
        folder = remote.folder_of(self.step, key_of(self.work, inputs), kind, _is_anew(task_ctx))
        return str(folder / "result.json")


def key_of(work: Callable[..., Any] | None, inputs: dict[str, Any]) -> str:
    """Digest of the inputs and of the code that the step runs."""
    assert work
    return _digest(_content_of(work, inputs))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _content_of(work: Callable[..., Any], inputs: dict[str, Any], listed: bool = False) -> dict[str, Any]:
    """What the key is the digest of, by names that a reader knows: ``training.epochs``, ``layers/dense.py``.

    ``listed``: a folder of images is as it was listed last, which was when Prefect asked for the key of this very run.
    """
    hash_all_fields_of = getattr(work, "hash_all_fields_of", ())
    content: dict[str, Any] = {"code": code_of(inspect.unwrap(work).__module__)}
    for also in getattr(work, "hash_also", ()):
        name, _, field = also.partition(".")
        content[also] = getattr(inputs[name], field)
    for name, value in inputs.items():
        if name in getattr(work, "not_hashed", ()):
            continue
        group = _GROUPS.get(type(value), name)
        if isinstance(value, DataConfig):
            listing = image_folder.listed(value.path, value.slices_file) if value.path and listed else None
            content[group] = source_key.key_content(value, listing)
        elif isinstance(value, DevicesConfig):
            content[group] = value.arithmetic if name in hash_all_fields_of else None
        elif isinstance(value, Record) and name not in hash_all_fields_of:
            content[group] = value.key_content
        elif isinstance(value, ModelConfig):  # the weights that it names are an input of their own, by content
            content[group] = value.model_dump(mode="json", exclude={"weights"})
        elif isinstance(value, ExportConfig):  # other formats are made of what this step makes
            content[group] = value.model_dump(mode="json", exclude={"formats", "required"})
        else:
            content[group] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if network := _network_of(value):
            content["network"] = network_code(network)
        if isinstance(value, TrainingConfig):
            content |= {name: user_code.package_digest(name, setting) for setting, name in value.own_code}
    return content


def _network_of(value: Any) -> str | None:
    """The network that an input of a step is or names."""
    if isinstance(value, ModelConfig | ModelRef):
        return value.name
    return value.model if isinstance(value, TrainedRef) else None


def _why(step: str, content: dict[str, Any], anew: bool) -> str | None:
    """Why a step runs and is not cached: what differs from the most similar earlier run, or nothing without one."""
    if anew:
        return "everything is made anew"
    if (before := step_inputs.nearest(step, content)) is None:
        return None
    changes = [_told(path, *pair) for path, pair in step_inputs.differences(before, content).items()]
    rest = f", and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
    return f"{', '.join(changes[:_MOST_CHANGES])}{rest}" if changes else "what it made is gone"


def _told(path: str, before: Any, now: Any) -> str:
    """A change in a few words: of digests, which tell nobody anything, only that they changed."""
    path = path.removeprefix("code.").removesuffix(".digest")
    texts = ["none" if each is None else printed(str(each), 40) for each in (before, now)]
    if any(re.search("[0-9a-f]{32}", each) for each in texts):
        return f"{path} changed"
    return f"{path} changed: {texts[0]} → {texts[1]}"


def is_anew() -> bool:
    """Whether this run makes every step anew, as Prefect's ``refresh_cache`` says, and this is the first try of it.

    A retry continues with what the first try left, such as a training's checkpoint.
    """
    context = TaskRunContext.get()
    return context is not None and _is_anew(context)


def _is_anew(context: TaskRunContext) -> bool:
    refresh = context.task.refresh_cache
    if refresh is None:
        refresh = PREFECT_TASKS_REFRESH_CACHE.value()
    return bool(refresh) and context.task_run.run_count <= 1


def make(step: Task[P, R], *inputs: Any, **keywords: Any) -> R:
    """What a call of ``step`` would give, made or found without Prefect, and without what is done with it then.

    Args:
        keywords: The step's keyword-only parameters.
    """
    cache = step.cache_policy
    assert isinstance(cache, StoreCache)
    assert cache.work
    return _make(cache.step, cache.work, inspect.signature(step.fn).bind(*inputs).arguments, **keywords)


def _make(name: str, work: Callable[..., R], inputs: dict[str, Any], **keywords: Any) -> R:
    remote.bring(inputs.values())
    for value in inputs.values():
        if isinstance(value, Record):
            artifacts.check_record(value)
    kind, anew = inspect.signature(work).return_annotation, is_anew()
    content = _content_of(work, inputs, listed=True)

    def build(target: Path) -> R:
        if why := _why(name, content, anew):
            log.info("%s runs because %s", name, why)
        return work(**inputs, **keywords, folder=target)

    try:
        record = artifacts.make(name, _digest(content), kind, build, content, anew)
    except Exception as error:
        if not isinstance(error, LayerflowError | OSError) and not heals(error) and (mistake := user_code.blame(error)):
            raise mistake from error
        raise
    finally:
        image_folder.forget()
    mirror.keep(record.folder, anew)
    return record


def cached(step: Task[P, R], *inputs: Any) -> R | None:
    """The record that a call of ``step`` with these inputs would find, or nothing if it would run; it runs nothing."""
    cache = step.cache_policy
    if not isinstance(cache, StoreCache):
        return None
    arguments = inspect.signature(step.fn).bind(*inputs).arguments
    key, kind = key_of(cache.work, arguments), inspect.signature(step.fn).return_annotation
    if record := artifacts.find(cache.step, key, kind):
        return record
    found = mirror.find(f"{cache.step}/{key}", kind)
    return cast(R, found[0]) if found else None
