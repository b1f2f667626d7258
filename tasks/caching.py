"""Which steps are cached: a step's result lies with its artifact, in the store, under a key of its inputs and its code.

The path of Prefect's record is the cache key, so that the same inputs and the same code are `Cached`, and a deleted
folder is made again.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from layerflow import artifacts, store, user_code
from layerflow.code_digest import code_digest
from layerflow.data import image_folder, source_key
from layerflow.errors import LayerflowError, heals
from layerflow.records import Record
from layerflow.registry import publishing
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig
from tasks.policy import P, as_task

R = TypeVar("R", bound=Record)


def result_storage() -> Path:
    """Where the flow's tasks keep Prefect's records of their results: the store, beside the artifacts."""
    return store.root()


def remove_leftovers(name: str) -> None:
    """Remove what dead runs left in the store and among the versions of the model ``name``."""
    store.remove_leftovers()
    publishing.remove_leftovers(name)


def step(
    name: str,
    run_name: str,
    *,
    on_result: Callable[[Any], None] = lambda record: None,
    hash_all_fields_of: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Make a Prefect task of a function whose last parameter, ``folder``, is where it puts what it makes.

    Callers do not pass ``folder``: the store gives it, and the step's record is what the task returns.

    Args:
        name: Name of the task, and of its folder in the store.
        run_name: Template of the task run's name, such as ``train-{model.name}-on-{data.name}``.
        on_result: Called with the step's record when the task runs, and so not where Prefect finds it `Cached`; may
            raise what must end the run.
        hash_all_fields_of: Inputs of which every field counts, and not the digest alone; of the devices, what changes
            bits.
    """

    def decorate(work: Callable[..., R]) -> Task[..., R]:
        work.hash_all_fields_of = hash_all_fields_of  # type: ignore[attr-defined]
        kind = inspect.signature(work).return_annotation

        @functools.wraps(work)
        def in_store(*args: Any, **kwargs: Any) -> R:
            record = _make(name, work, inspect.signature(in_store).bind(*args, **kwargs).arguments)
            on_result(record)
            return record

        parameters = [each for each in inspect.signature(work).parameters.values() if each.name != "folder"]
        in_store.__signature__ = inspect.Signature(parameters, return_annotation=kind)  # type: ignore[attr-defined]
        return as_task(in_store, name, run_name, StoreCache(step=name, work=work))

    return decorate


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
    hash_all_fields_of = getattr(work, "hash_all_fields_of", ())
    content: list[Any] = [code_digest(Path(inspect.getfile(inspect.unwrap(work))))]
    for name, value in inputs.items():
        if isinstance(value, DataConfig):
            content.append(
                source_key.identity(value, image_folder.listed(value.path) if value.path and listed else None)
            )
        elif isinstance(value, DevicesConfig):
            content.append(value.arithmetic if name in hash_all_fields_of else None)
        else:
            content.append(value.model_dump(mode="json") if name in hash_all_fields_of else _identity(value))
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
