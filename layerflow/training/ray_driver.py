"""Training by several workers on a Ray cluster, or on a Ray of its own on this machine: the extra ``ray``.

This process starts the workers and waits for what they tell; ``ray_worker`` is what each of them does.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
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
from layerflow.training.ray_worker import Job, work

log = logging.getLogger(__name__)
#: How often lost workers are started again, each time at the last checkpoint: a machine that is taken away now and
#: then is no reason to give up, one that kills every worker at once is.
_RESTARTS = 3
#: Seconds between two looks at whether training is over, when nothing is told.
_LOOK_SECONDS = 1.0


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
    scratch = store.root() / "checkpoints" / fingerprint / "ray"  # removed with the checkpoint where a run is killed
    try:
        with cluster_for(config.workers):
            resources = _resources(job)
            check_nodes(job.place, folder)
            return _follow(job, resources, scratch, callbacks)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


def _follow(job: Job, resources: dict[str, float], scratch: Path, callbacks: Sequence[Any]) -> TrainedRef:
    """Start the workers, hand on what they tell, and return the chief's record; Ray writes into ``scratch``."""
    import keras
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told = keras.callbacks.CallbackList(list(callbacks), model=keras.Sequential(), epochs=job.config.epochs)
    news = Queue(actor_options={"num_cpus": 0})
    # Not in a thread: Ray's `fit` blocks until all workers are gone, and leaving Ray before crashes the process.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    start = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(fit)
    running = start.remote(job, resources, scratch, news)
    told.on_train_begin()
    while True:
        over = bool(ray.wait([running], timeout=0)[0])
        try:
            kind, content = news.get(timeout=_LOOK_SECONDS)
        except Empty:
            if over:
                raise _lost(running) from None
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


def _lost(running: Any) -> WorkersLostError:
    """What to say when training is over and no worker has said why."""
    import ray

    try:
        ray.get(running)
        reason = "they ended without an error message"
    except ray.exceptions.RayError as error:
        reason = reason_of(error)
    return WorkersLostError(
        f"The workers must come to the end of a training. They were lost {_RESTARTS + 1} times, the last time so: "
        f"{reason}; the next run resumes at the last checkpoint."
    )


def fit(job: Job, resources: dict[str, float], scratch: Path, news: Any) -> None:
    """Start the workers, and start them again where they die; in a process of Ray's."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    scaling = ScalingConfig(num_workers=job.config.workers, use_gpu="GPU" in resources, resources_per_worker=resources)
    running = RunConfig(storage_path=str(scratch), failure_config=FailureConfig(max_failures=_RESTARTS))
    settings = {"job": job, "news": news}
    TensorflowTrainer(work, train_loop_config=settings, scaling_config=scaling, run_config=running).fit()
