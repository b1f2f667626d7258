"""How every step is retried, and what is left of one that failed.

| kind | examples | what happens |
|---|---|---|
| heals by itself | network, `OSError`, `tf.errors.UnavailableError`, a lock held | retried, back-off with jitter |
| does not heal | wrong config, unknown dataset, wrong checksum, NaN loss, out of memory, disk full | fails at once |

The table is ``layerflow.errors.heals``.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import FlowRun, State, TaskRun

from layerflow import store
from layerflow.errors import heals

P = ParamSpec("P")
T = TypeVar("T")
#: Seconds before each retry: long enough for a connection to come back, short enough that a machine that has none
#: hears so within half a minute.
RETRY_DELAYS = [1.0, 3.0, 9.0]


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
