"""Training by several workers on a Ray cluster, or on a Ray of its own on this machine: the extra `ray`.

The step's process starts nothing but the workers, and waits for what they tell. Each worker trains as one process does
(`training.train_here`), joined with the others by TensorFlow, which sums the gradients of each step over all of them.
"""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import secrets
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import store, user_code
from layerflow.code_digest import code_digest
from layerflow.errors import ClusterError, ConfigError, LayerflowError, UnreachableError, WorkersLostError, heals
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.training import TrainingConfig

log = logging.getLogger(__name__)

#: How often lost workers are started again, each time at the last checkpoint: a machine that is taken away now and
#: then is no reason to give up, one that kills every worker at once is.
_RESTARTS = 3
#: Seconds in which the head of a cluster must answer; a healthy one takes milliseconds.
_CONNECT_SECONDS = 5
#: Seconds that a node may take to say what it has: as long as Ray takes to start a first process there.
_REPORT_SECONDS = 60
#: Seconds between two looks at whether training is over, when nothing is told.
_LOOK_SECONDS = 1.0
#: Bytes of Ray's own store on this machine, the least it takes: no array goes through it.
_OBJECT_STORE_BYTES = 80 * 2**20
#: Whose versions must be the same on all nodes.
_LIBRARIES = ("tensorflow", "keras", "numpy", "ray")
#: Those that carry a trial of a sweep, too.
SWEEP_LIBRARIES = (*_LIBRARIES, "prefect", "prefect-ray", "optuna")


class Place(NamedTuple):
    """Where a process works, and with which network; each node must see and have the same."""

    store: Path
    working_folder: str
    network: str
    libraries: tuple[str, ...] = _LIBRARIES

    def enter(self) -> None:
        """Make this process see the store, and the modules of the user, as the one that asks for the work does."""
        os.environ["LAYERFLOW_STORE"] = str(self.store)
        if self.working_folder not in sys.path:
            sys.path.append(self.working_folder)


class Job(NamedTuple):
    """What each worker must know; it goes over the network."""

    config: TrainingConfig
    model: ModelRef
    data: DatasetRef
    machine: DevicesConfig
    fingerprint: str
    folder: Path
    place: Place


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
    job = Job(config, model, data, machine, fingerprint, folder, Place(store.root(), os.getcwd(), model.name))
    scratch = store.root() / "checkpoints" / fingerprint / "ray"  # swept with the checkpoint where a run is killed
    try:
        with _cluster(config.workers):
            resources = _resources(job)
            check_nodes(job.place, folder)
            return _follow(job, resources, scratch, callbacks)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """A connection to the cluster that ``RAY_ADDRESS`` names, or a Ray on this machine that ends with it."""
    import ray

    if ray.is_initialized():
        raise ConfigError(
            f"training.workers {workers} must be started from a process that is not part of a Ray cluster itself, and "
            "this one is; set training.workers 1 there."
        )
    address = os.environ.get("RAY_ADDRESS") or "local"
    connect(address)
    try:
        yield
    except ray.exceptions.RayError as error:
        raise UnreachableError(
            f"The Ray cluster must answer until training is over. {address} no longer does: {said(error)}; the next "
            "run goes on at the last checkpoint."
        ) from error
    finally:
        ray.shutdown()


def connect(address: str, **settings: Any) -> None:
    """Join the cluster at ``address``, ``auto`` for one that this machine is part of, or start a Ray for ``local``.

    Whoever calls this also calls ``ray.shutdown``.

    Raises:
        UnreachableError: If there is none, or it does not take this process in.
    """
    import ray

    settings |= {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _knock(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **settings)
    except (OSError, RuntimeError, ValueError) as error:  # Ray says it in one of these ways
        raise UnreachableError(
            f"Ray must take this process in. {address} says: {said(error)}; look at its head, and where it asks for a "
            "token, set RAY_AUTH_MODE=token here."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # Ray has put its own there: a run that Prefect cancels would not be told.
        signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)


def _knock(address: str) -> None:
    """See that somebody is at home: Ray itself would wait for a minute, and then end the process.

    Raises:
        UnreachableError: If nobody is, or does not say a word.
    """
    import grpc

    host = _found_here() if address == "auto" else address.removeprefix("ray://")
    if ":" not in host or os.environ.get("RAY_USE_TLS") == "1":  # what only Ray can find, or has the keys to
        return
    with grpc.insecure_channel(host) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            where = f"{address} ({host})" if address == "auto" else address
            raise UnreachableError(
                f"The Ray cluster must answer within {_CONNECT_SECONDS} seconds. {where} does not; start its head, "
                "name another (RAY_ADDRESS, --ray), or none to work on this machine alone."
            ) from error


def _found_here() -> str:
    """The address that Ray takes `auto` for: that of RAY_ADDRESS, of a Ray on this machine, or of the last one there.

    Raises:
        UnreachableError: If it finds none.
    """
    from ray._private import services  # nothing public tells it without joining, and the last one may be long gone

    try:
        return str(services.canonicalize_bootstrap_address("auto"))
    except (ConnectionError, ValueError) as error:
        raise UnreachableError(
            "`auto` must find a Ray cluster that this machine is part of. There is none; start one (`ray start "
            "--head`), name its address (RAY_ADDRESS, --ray), or take `local` for a Ray that ends with the run."
        ) from error


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
            f"training.workers {job.config.workers} needs as many times {asked} on one node, and the cluster has room "
            f"for {room}; ask for at most {room} workers, or add nodes."
        )
    free = ray.available_resources()
    if any(free.get(kind, 0) < share * job.config.workers for kind, share in each.items()):
        log.warning("the cluster is busy: waiting until %d workers have room on it", job.config.workers)
    return each


def check_nodes(place: Place, folder: Path) -> None:
    """Ask every node of the cluster what it has, and whether it sees what is written into ``folder`` of the store.

    Raises:
        ClusterError: Naming the first node that can't take part, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(16)
    probe = folder / ".probe"
    probe.write_text(token)
    ask = ray.remote(num_cpus=0, max_retries=0)(report)
    asked, here = [], report(place, probe)
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node["NodeManagerAddress"], ask.options(scheduling_strategy=there).remote(place, probe)))
    try:
        for node, answer in asked:
            try:
                found = ray.get(answer, timeout=_REPORT_SECONDS)
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"Every node must be able to run layerflow. {node} is not ({said(error)}); install it there as it "
                    "is installed here."
                ) from error
            compare(node, found, here, token)
    finally:
        probe.unlink()


def report(place: Place, probe: Path) -> dict[str, str]:
    """What this machine has, by name: versions, digests of the code, and what it reads in the file ``probe``."""
    place.enter()
    found = {"python": platform.python_version()}
    found |= {library: importlib.metadata.version(library) for library in place.libraries}
    found["layerflow's code"] = code_digest(Path(__file__))
    if user_code.is_own(place.network):
        found[f"the code of {place.network}"] = user_code.code_of(place.network)
    found["probe"] = probe.read_text() if probe.exists() else ""
    return found


def compare(node: str, found: dict[str, str], here: dict[str, str], token: str) -> None:
    """See that a node has what there is here, and sees the store.

    Raises:
        ClusterError: Naming the node and what differs.
    """
    if found["probe"] != token:
        raise ClusterError(
            f"Every node must see the store {store.root()} under the same path, and {node} does not; mount it there, "
            "or set LAYERFLOW_STORE to a folder that all of them share."
        )
    for name, ours in here.items():
        if (theirs := found.get(name, "none")) != ours:
            raise ClusterError(
                f"Every node must have {name} {ours[:12]}, as this machine has. {node} has {theirs[:12]}; install "
                "there what is installed here."
            )


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
        reason = "they ended without a word"
    except ray.exceptions.RayError as error:
        reason = said(error)
    return WorkersLostError(
        f"The workers must come to the end of a training. They were lost {_RESTARTS + 1} times, the last time so: "
        f"{reason}; the next run goes on at the last checkpoint."
    )


def fit(job: Job, resources: dict[str, float], scratch: Path, news: Any) -> None:
    """Start the workers, and start them again where they die; in a process of Ray's."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    scaling = ScalingConfig(num_workers=job.config.workers, use_gpu="GPU" in resources, resources_per_worker=resources)
    running = RunConfig(storage_path=str(scratch), failure_config=FailureConfig(max_failures=_RESTARTS))
    settings = {"job": job, "news": news}
    TensorflowTrainer(work, train_loop_config=settings, scaling_config=scaling, run_config=running).fit()


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
    job.place.enter()
    try:
        _train(job, news)
    except FileNotFoundError as error:  # no stumble: every node was seen to read the store before
        sentence = (
            f"Every node must find the files of the training, and {platform.node()} finds no {error.filename}; see "
            "that it is in the store."
        )
        news.put(("failed", ClusterError(sentence)))
    except (LayerflowError, OSError) as error:
        if heals(error):
            raise
        news.put(("failed", error))
    except Exception as error:
        if _is_loss_of_others(error):
            raise
        # In words: what a library raises may not survive the way.
        news.put(("failed", RuntimeError(f"A worker failed with this:\n{traceback.format_exc()}")))


def _train(job: Job, news: Any) -> None:
    import keras
    import ray.train
    import tensorflow as tf

    from layerflow import devices, memory
    from layerflow.training.train import train_here

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


def _is_loss_of_others(error: Exception) -> bool:
    """Whether TensorFlow says, in one of its ways, that another worker is gone."""
    import tensorflow as tf

    repeating = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError)
    return isinstance(error, tf.errors.OpError) and not isinstance(error, repeating)


def said(error: Exception) -> str:
    """What an error of Ray says, in a line; of one that was raised over there, what stands below its traceback."""
    import ray

    text = str(error).strip()
    if isinstance(error, ray.exceptions.RayTaskError):
        return text.splitlines()[-1].strip()
    return " ".join(text.split())[-300:]
