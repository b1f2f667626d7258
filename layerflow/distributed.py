"""Training by several workers on a Ray cluster, or on a Ray of its own on this machine: the extra `ray`.

The step's process starts nothing but the workers, and waits for what they tell. Each worker trains as one process does
(`training.train_here`), joined with the others by TensorFlow, which sums the gradients of each step over all of them.
"""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import own, store
from layerflow.code import code_digest
from layerflow.config import DevicesConfig, TrainingConfig
from layerflow.errors import ClusterError, ConfigError, UnreachableError, WorkersLostError, heals
from layerflow.records import DatasetRef, ModelRef, TrainedRef

log = logging.getLogger(__name__)

#: How often lost workers are started again, each time at the last checkpoint: a machine that is taken away now and
#: then is no reason to give up, one that kills every worker at once is.
_RESTARTS = 3
#: Seconds in which the head of a cluster must take a connection, and then answer.
_CONNECT_SECONDS = 5
#: Seconds that a node may take to say what it has: as long as Ray takes to start a first process there.
_REPORT_SECONDS = 60
#: Seconds between two looks at whether training is over, when nothing is told.
_LOOK_SECONDS = 1.0
#: Bytes of Ray's own store on this machine, the least it takes: no array goes through it.
_OBJECT_STORE_BYTES = 80 * 2**20
#: Whose versions must be the same on all nodes.
_LIBRARIES = ("tensorflow", "keras", "numpy", "ray")


class Job(NamedTuple):
    """What each worker must know; it goes over the network."""

    config: TrainingConfig
    model: ModelRef
    data: DatasetRef
    machine: DevicesConfig
    fingerprint: str
    folder: Path
    store: Path
    working_folder: str

    def enter(self) -> None:
        """Make this process see the store, and the modules of the user, as the one that asks for the training does."""
        os.environ["LAYERFLOW_STORE"] = str(self.store)
        if self.working_folder not in sys.path:
            sys.path.append(self.working_folder)


def require_ray(config: TrainingConfig) -> None:
    """See that Ray is there where several workers need it.

    Raises:
        ConfigError: With the command that installs it.
    """
    if config.workers > 1 and importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"training.workers {config.workers} needs Ray, which is not installed; "
            "pip install 'layerflow[ray]', or in a clone: make ray."
        )


def train_on_ray(
    config: TrainingConfig,
    model: ModelRef,
    data: DatasetRef,
    folder: Path,
    fingerprint: str,
    callbacks: Sequence[Any],
    machine: DevicesConfig,
) -> TrainedRef:
    """What ``training.train`` does, by ``config.workers`` processes; those that die are started again.

    Raises:
        What ``training.train`` raises.
    """
    require_ray(config)
    job = Job(config, model, data, machine, fingerprint, folder, store.root(), os.getcwd())
    with _cluster(config.workers):
        resources = _resources(job)
        _check_nodes(job)
        return _follow(job, resources, callbacks)


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """A connection to the cluster that ``RAY_ADDRESS`` names, or a Ray on this machine that ends with it."""
    import ray

    if ray.is_initialized():
        raise ConfigError(
            f"training.workers {workers} must be started from a process that is not part of a Ray cluster itself, and "
            "this one is; set training.workers 1 there."
        )
    address = os.environ.get("RAY_ADDRESS", "local")
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        quiet |= {"object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _knock(address)
    try:
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:  # Ray says it in one of these ways
        raise UnreachableError(f"The Ray cluster at {address} must answer. It says: {_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody is at home: Ray itself would wait for a minute.

    Raises:
        UnreachableError: If nobody is.
    """
    named = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if not named:
        return
    try:
        socket.create_connection((named[1], int(named[2])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UnreachableError(
            f"The Ray cluster that RAY_ADDRESS names must answer. {address} does not ({_line(error)}); start its head, "
            "name another, or unset RAY_ADDRESS to train on this machine alone."
        ) from error


def _resources(job: Job) -> dict[str, float]:
    """What each worker takes: a GPU where the cluster has any, and a CPU, or as many as it uses threads.

    Raises:
        ClusterError: If there are too few.
    """
    import ray

    there = ray.cluster_resources()
    each = {"CPU": float(job.machine.threads or 1)} | ({"GPU": 1.0} if there.get("GPU") else {})
    for kind, share in each.items():
        needed, found = share * job.config.workers, there.get(kind, 0)
        if needed > found:
            raise ClusterError(
                f"training.workers {job.config.workers} needs {needed:.0f} {kind}s, and the cluster has {found:.0f}; "
                f"ask for at most {found // share:.0f} workers, or add nodes."
            )
    return each


def _check_nodes(job: Job) -> None:
    """Ask every node what it has.

    Raises:
        ClusterError: Naming the first node that can't take part, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(16)
    probe = job.folder / ".probe"
    probe.write_text(token)
    ask = ray.remote(num_cpus=0, max_retries=0)(report)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerAddress"]] = ask.options(scheduling_strategy=there).remote(job, probe)
    try:
        for node, answer in asked.items():
            try:
                found = ray.get(answer, timeout=_REPORT_SECONDS)
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"Every node must be able to run layerflow. {node} is not ({_line(error)}); install it there as it "
                    "is installed here."
                ) from error
            compare(node, found, report(job, probe), token)
    finally:
        probe.unlink()


def report(job: Job, probe: Path) -> dict[str, str]:
    """What this machine has, by name: versions, digests of the code, and what it reads in the file ``probe``."""
    job.enter()
    found = {"python": platform.python_version()}
    found |= {library: importlib.metadata.version(library) for library in _LIBRARIES}
    found["layerflow's code"] = code_digest(Path(__file__))
    if own.is_own(job.model.name):
        found[f"the code of {job.model.name}"] = own.code_of(job.model.name)
    found["probe"] = probe.read_text() if probe.exists() else ""
    return found


def compare(node: str, found: dict[str, str], here: dict[str, str], token: str) -> None:
    """See that a node has what there is here, and sees the store.

    Raises:
        ClusterError: Naming the node and what differs.
    """
    if found["probe"] != token:
        raise ClusterError(
            f"Every node must see the store {store.root()} under the same path, and {node} does not; mount it there, or "
            "set LAYERFLOW_STORE to a folder that all of them share."
        )
    for name in here:
        if found.get(name) != here[name]:
            ours, theirs = (each if len(each) < 20 else f"{each[:12]}…" for each in (here[name], found.get(name, "none")))
            raise ClusterError(
                f"Every node must have {name} {ours}, as here. {node} has {theirs}; install there what is installed here."
            )


def _follow(job: Job, resources: dict[str, float], callbacks: Sequence[Any]) -> TrainedRef:
    """Start the workers, hand on what they tell, and return the chief's record."""
    import keras
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer
    from ray.util.queue import Empty, Queue

    told = keras.callbacks.CallbackList(list(callbacks), model=keras.Sequential(), epochs=job.config.epochs)
    news = Queue(actor_options={"num_cpus": 0})
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=job.store) as scratch:
        trainer = TensorflowTrainer(
            work,
            train_loop_config={"job": job, "news": news},
            scaling_config=ScalingConfig(
                num_workers=job.config.workers, use_gpu="GPU" in resources, resources_per_worker=resources
            ),
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=_RESTARTS)),
        )
        running = _Thread(trainer.fit)
        told.on_train_begin()
        while True:
            over = not running.is_alive()
            try:
                kind, content = news.get(timeout=_LOOK_SECONDS)
            except Empty:
                if over:
                    raise running.failed() from running.error
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


class _Thread(threading.Thread):
    """Runs Ray's `fit`, which blocks, and takes over Ctrl-C where it is called in the main thread."""

    def __init__(self, fit: Any) -> None:
        super().__init__(name="ray-fit", daemon=True)
        self.fit, self.error = fit, None
        self.start()

    def run(self) -> None:
        try:
            self.fit()
        except Exception as error:
            self.error = error

    def failed(self) -> Exception:
        """What to say when it ended and no worker had said anything."""
        return WorkersLostError(
            f"The workers must come to the end of a training. They were lost {_RESTARTS + 1} times, the last one with: "
            f"{_line(self.error)}; the next run goes on at the last checkpoint."
        )


class _Told(logging.Handler):
    """Hands what the chief logs to the process that asked for the training."""

    def __init__(self, news: Any) -> None:
        super().__init__(logging.INFO)
        self.news = news

    def emit(self, record: logging.LogRecord) -> None:
        self.news.put(("logged", (record.name, record.levelno, "%s", record.getMessage())))


def work(settings: dict[str, Any]) -> None:
    """What each worker does; Ray calls it.

    An error that would come again is told, and ends the training. Anything else is raised: Ray starts the workers anew.
    """
    job, news = settings["job"], settings["news"]
    job.enter()
    try:
        _train(job, news)
    except Exception as error:
        if heals(error) or _is_of_tensorflow(error):
            raise
        news.put(("failed", error))


def _train(job: Job, news: Any) -> None:
    import keras
    import ray.train
    import tensorflow as tf

    from layerflow import devices, memory
    from layerflow.training import train_here

    devices.set_up(job.machine.model_copy(update={"threads": job.machine.threads or 1}))
    # The workers of one machine share what is free there.
    neighbours = ray.train.get_context().get_local_world_size()
    budget = job.config.memory_budget or max(1, memory.free_bytes() // 2**21 // neighbours)
    config = job.config.model_copy(update={"memory_budget": budget})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    callbacks = []
    if ray.train.get_context().get_world_rank() == 0:
        ours = logging.getLogger("layerflow")
        ours.setLevel(logging.INFO)
        ours.addHandler(_Told(news))
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: news.put(("on_epoch_begin", (epoch,))),
                on_epoch_end=lambda epoch, logs: news.put(("on_epoch_end", (epoch, logs))),
            )
        )
    made = train_here(config, job.model, job.data, job.folder, job.fingerprint, callbacks, strategy)
    if made:
        news.put(("made", made))


def _is_of_tensorflow(error: Exception) -> bool:
    """Whether the error is one of TensorFlow's runtime, as when another worker is gone."""
    return any(each.__module__.startswith("tensorflow") for each in type(error).__mro__)


def _line(error: Any) -> str:
    return " ".join(str(error).split())[-300:]
