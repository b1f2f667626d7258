"""A Ray cluster: joining it, and seeing that each node can take part."""

import importlib.util
import logging
import os
import platform
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import store, user_code
from layerflow.code_digest import code_digest
from layerflow.errors import ClusterError, ConfigError, UnreachableError

#: Seconds in which the head of a cluster must answer; a healthy one takes milliseconds.
_CONNECT_SECONDS = 5
#: Seconds that a node may take to say what it has: as long as Ray takes to start a first process there.
_REPORT_SECONDS = 60
#: Bytes of Ray's own store on this machine, the least it takes: no array goes through it.
_OBJECT_STORE_BYTES = 80 * 2**20
#: Whose versions must be the same on all nodes.
_LIBRARIES = ("tensorflow", "keras", "numpy", "ray")
#: Those that carry a trial of a sweep, too.
SWEEP_LIBRARIES = (*_LIBRARIES, "prefect", "prefect-ray", "optuna")


class Place(NamedTuple):
    """Where a process works, and with which code of your own; each node must see and have the same."""

    store: Path
    working_folder: str
    network: str
    libraries: tuple[str, ...] = _LIBRARIES
    own_code: tuple[tuple[str, str], ...] = ()

    def enter(self) -> None:
        """Make this process see the store, and the modules of the user, as the one that asks for the work does."""
        os.environ["LAYERFLOW_STORE"] = str(self.store)
        if self.working_folder not in sys.path:
            sys.path.append(self.working_folder)


@contextmanager
def cluster_for(workers: int) -> Iterator[None]:
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
            f"The Ray cluster must answer until training is over. {address} no longer does: {reason_of(error)}; the "
            "next run resumes at the last checkpoint."
        ) from error
    finally:
        ray.shutdown()


def connect(address: str, **settings: Any) -> None:
    """Join the cluster at ``address``, ``auto`` for one that this machine is part of, or start a Ray for ``local``.

    Whoever calls this also calls ``ray.shutdown``.

    Raises:
        UnreachableError: If no cluster answers there, or it refuses this process.
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
            f"Ray must take this process in. {address} says: {reason_of(error)}; look at its head, and where it asks "
            "for a token, set RAY_AUTH_MODE=token here."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # Ray has put its own there: a run that Prefect cancels would not be told.
        signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)


def _knock(address: str) -> None:
    """See that the head answers: Ray itself would wait for a minute, and then end the process.

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
            "`auto` must find a Ray cluster that this machine is part of. It found none; start one (`ray start "
            "--head`), name its address (RAY_ADDRESS, --ray), or take `local` for a Ray that ends with the run."
        ) from error


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
    ask = ray.remote(num_cpus=0, max_retries=0)(describe_node)
    asked, here = [], describe_node(place, probe)
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
                    f"Every node must be able to run layerflow. {node} is not ({reason_of(error)}); install it there "
                    "as it is installed here."
                ) from error
            require_same(node, found, here, token)
    finally:
        probe.unlink()


def describe_node(place: Place, probe: Path) -> dict[str, str]:
    """What this machine has, by name: versions, digests of the code, and what it reads in the file ``probe``."""
    place.enter()
    found = {"python": platform.python_version()}
    found |= {library: importlib.metadata.version(library) for library in place.libraries}
    found["layerflow's code"] = code_digest("layerflow.training.train")
    if user_code.is_own(place.network):
        found[f"the code of {place.network}"] = user_code.package_digest(place.network)
    found |= {f"the code of {name}": user_code.package_digest(name, setting) for setting, name in place.own_code}
    found["probe"] = probe.read_text() if probe.exists() else ""
    return found


def require_same(node: str, found: dict[str, str], here: dict[str, str], token: str) -> None:
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


def reason_of(error: Exception) -> str:
    """What an error of Ray says, in a line; of one that was raised over there, what stands below its traceback."""
    import ray

    text = str(error).strip()
    if isinstance(error, ray.exceptions.RayTaskError):
        return text.splitlines()[-1].strip()
    return " ".join(text.split())[-300:]
