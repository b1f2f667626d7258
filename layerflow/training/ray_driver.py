"""Training by several workers on a Ray cluster, or on a Ray of its own on this machine: the extra ``ray``.

This process starts the workers and waits for what they tell; ``ray_worker`` is what each of them does.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.errors import ClusterError, WorkersLostError
from layerflow.extras import require_ray
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.ray_cluster import Place, check_nodes, cluster_for, reason_of
from layerflow.training.ray_worker import Job, Worker

log = logging.getLogger(__name__)
#: How often lost workers are started again, each time at the last checkpoint: a machine that is taken away now and
#: then is no reason to give up, one that kills every worker at once is.
_RESTARTS = 3
#: Seconds to wait for news before looking whether training is over.
_LOOK_SECONDS = 1.0
#: Seconds that workers may need to end: milliseconds, unless their node is gone.
_END_SECONDS = 30.0


def train_on_ray(
    train_here: Callable[..., TrainedRef | None],
    config: TrainingConfig,
    augment: AugmentConfig,
    finetune: FinetuneConfig,
    model: ModelRef,
    data: DatasetRef,
    folder: Path,
    fingerprint: str,
    callbacks: Sequence[Any],
    machine: DevicesConfig,
) -> TrainedRef:
    """What ``training.train`` does, by ``config.workers`` processes; those that die are started again.

    Args:
        train_here: What each of them calls; it goes over the network by its name.

    Raises:
        What ``training.train`` raises.
    """
    require_ray(config)
    place = Place(store.root(), os.getcwd(), model.name, own_code=config.own_code)
    job = Job(train_here, config, augment, finetune, model, data, machine, fingerprint, folder, place)
    with cluster_for(config.workers):
        resources = _resources(job)
        check_nodes(job.place, folder)
        return _follow(job, resources, callbacks)


def _resources(job: Job) -> dict[str, float]:
    """What each worker takes: a GPU where the cluster has any, and a CPU, or as many as it uses threads.

    Raises:
        ClusterError: If there are too few.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU") for node in nodes)
    each = {"CPU": float(job.machine.threads or 1)} | ({"GPU": 1.0} if has_gpus else {})
    room = sum(int(min(node.get(kind, 0) // share for kind, share in each.items())) for node in nodes)
    if job.config.workers > room:
        asked = " and ".join(f"{share:.0f} {kind}" for kind, share in each.items())
        raise ClusterError(
            f"training.workers {job.config.workers} needs {asked} for each worker on one node, and the cluster has "
            f"room for {room}; ask for at most {room} workers, or add nodes."
        )
    free = ray.available_resources()
    if any(free.get(kind, 0) < share * job.config.workers for kind, share in each.items()):
        log.warning("the cluster is busy: waiting until %d workers have room on it", job.config.workers)
    return each


def _follow(job: Job, resources: dict[str, float], callbacks: Sequence[Any]) -> TrainedRef:
    """Start the workers, hand on what they tell, and return the chief's record; start them again when one is lost."""
    import keras
    import ray

    told = keras.callbacks.CallbackList(list(callbacks), model=keras.Sequential(), epochs=job.config.epochs)
    told.on_train_begin()
    reason = ""
    for _ in range(_RESTARTS + 1):
        try:
            with _workers(job, resources) as (running, news):
                return _listen(running, news, told)
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
            reason = reason_of(error)
            log.warning("a worker was lost: %s", reason)
    raise WorkersLostError(
        f"The workers must come to the end of a training. They were lost {_RESTARTS + 1} times, the last time so: "
        f"{reason}; the next run resumes at the last checkpoint."
    )


@contextmanager
def _workers(job: Job, resources: dict[str, float]) -> Iterator[tuple[list[Any], Any]]:
    """What the workers do, a reference each, and the queue that they tell in; at the end all of them are gone."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    together = ray.util.placement_group([resources] * job.config.workers, strategy="PACK")
    share = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
    start = ray.remote(**share, scheduling_strategy=PlacementGroupSchedulingStrategy(together))(Worker).remote
    workers, news, running = [start() for _ in range(job.config.workers)], Queue(actor_options={"num_cpus": 0}), []
    try:
        addresses = ray.get([worker.address.remote() for worker in workers])
        running = [worker.work.remote(job, news, addresses, rank) for rank, worker in enumerate(workers)]
        yield running, news
    finally:
        for worker in workers:
            ray.kill(worker)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_END_SECONDS)  # the next ones must find none of these
        news.shutdown(force=True)
        ray.util.remove_placement_group(together)


def _listen(running: list[Any], news: Any, told: Any) -> TrainedRef:
    """Hand on what the workers tell, until the chief has made the model.

    Raises:
        RayError: If one of them is lost, or its error is one that a new start may heal.
        WorkersLostError: If all ended and none said why.
    """
    import ray
    from ray.util.queue import Empty

    while True:
        over, _ = ray.wait(running, num_returns=len(running), timeout=0)
        try:
            kind, content = news.get(timeout=_LOOK_SECONDS)
        except Empty:
            ray.get(over)  # which raises what one of them ended with
            if len(over) == len(running):
                raise WorkersLostError(
                    "The workers must come to the end of a training. They ended without a model and without an error "
                    "message; the next run resumes at the last checkpoint."
                ) from None
            continue
        if kind == "made":
            told.on_train_end()
            return content
        if kind == "failed":
            raise content
        if kind == "logged":
            logging.getLogger(content[0]).log(*content[1:])
        else:
            getattr(told, kind)(*content)
