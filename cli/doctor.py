"""Whether this machine can run the flow: a line for each thing that a run needs, with what to do where it lacks."""

import fcntl
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement
from rich.text import Text

from cli.output import console
from cli.prefect_server import configured_url, ensure_answering
from cli.terminal import quiet_stderr
from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import LayerflowError, UnreachableError, UserError, mask
from layerflow.registry import first_weights
from layerflow.remote import bucket as buckets
from layerflow.remote import mirror
from layerflow.settings.data import DataConfig
from layerflow.settings.hub import is_hub
from layerflow.settings.model import ModelConfig

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_PACKAGES = ("python", "tensorflow", "keras", "prefect", "tensorflow-datasets", "numpy")
_GIB = 2**30
#: A download, what TFDS makes of it and the arrays lie side by side for a while: less is soon full.
_LOW_DISK = 1 * _GIB
#: As for the network elsewhere: a server that takes longer to answer would make every step of a run wait so long.
_ANSWER_SECONDS = 5


class Finding(NamedTuple):
    """What was found about one thing: ``level`` is ok, warn or fail."""

    name: str
    level: str
    detail: str


def diagnose(data: DataConfig, model: ModelConfig, as_json: bool) -> None:
    """Say what is found, each line as soon as it is known.

    Raises:
        UserError: After all was looked at, if a run can't be made here.
    """
    found = []
    for finding in _findings(data, model):
        found.append(finding)
        if not as_json:
            line = Text.assemble((f"{finding.level:6}", _COLOURS[finding.level]), f"{finding.name:10}", finding.detail)
            console().print(line)
    if as_json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    if failed := [finding.name for finding in found if finding.level == "fail"]:
        raise UserError(f"This machine must have all that a run needs. Fix {', '.join(failed)} as described above.")


def _findings(data: DataConfig, model: ModelConfig = ModelConfig()) -> Iterator[Finding]:  # noqa: B008  (frozen)
    checks: dict[str, Callable[[], tuple[str, str]]] = {
        "versions": _versions,
        "devices": _devices,
        "store": _store,
        **({"remote": _remote} if os.environ.get("LAYERFLOW_REMOTE") else {}),
        "dataset": lambda: _dataset(data),
        **({"weights": lambda: _weights(data, model)} if model.weights != "none" or is_hub(model.name) else {}),
        "prefect": _prefect,
        "locks": _locks,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, *mask(check()))
        except Exception as error:  # whatever it is, the other lines are still to be said
            said = mask(" ".join(str(error).split()))
            ours = isinstance(error, LayerflowError | UnreachableError)
            yield Finding(name, "fail", said if ours else f"{type(error).__name__}: {said}")


def _versions() -> tuple[str, str]:
    wrong = [
        f"{needed} (here: {version or 'none'})"
        for needed in _requirements()
        if not ((version := _version(needed.name)) and needed.specifier.contains(version, prereleases=True))
    ]
    if wrong:
        return "fail", f"layerflow needs {'; '.join(wrong)}. `make setup` installs the versions it was tested with."
    return "ok", ", ".join(f"{name} {_version(name) or 'missing'}" for name in _PACKAGES)


def _requirements() -> list[Requirement]:
    """What pyproject.toml asks for without extras; nothing where layerflow runs from a folder and is not installed."""
    try:
        about = metadata.metadata("layerflow")
    except metadata.PackageNotFoundError:
        return []
    asked = [Requirement(text) for text in (f"python{about['Requires-Python']}", *about.get_all("Requires-Dist", []))]
    return [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]


def _version(package: str) -> str | None:
    try:
        return platform.python_version() if package == "python" else metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> tuple[str, str]:
    with quiet_stderr():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    memory = f"{psutil.virtual_memory().available / _GIB:.1f} GiB of memory are free"
    if gpus:
        return "ok", f"training runs on {', '.join(names)}; {memory}"
    # Only the cores that this process may use: a container often has fewer than the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = f"training runs on the CPU, with {cores} cores; {memory}"
    if Path("/dev/nvidiactl").exists():
        remedy = "`pip install tensorflow[and-cuda]`, or check what CUDA_VISIBLE_DEVICES hides"
        return "warn", f"{cpu}. NVIDIA's driver is here, and TensorFlow sees no GPU: {remedy}."
    return "ok", cpu


def _store() -> tuple[str, str]:
    store.ensure_writable()
    free = shutil.disk_usage(store.root()).free
    detail = f"{store.root()} can be written; {free / _GIB:.1f} GiB are free on its disk"
    if free < _LOW_DISK:
        return "warn", f"{detail}. Make room, or set LAYERFLOW_STORE to a folder on another disk."
    return "ok", detail


def _remote() -> tuple[str, str]:
    bucket = buckets.in_force()
    assert bucket
    probe = f".probes/{uuid.uuid4().hex}"
    tag = bucket.create(probe, b"1")
    swapped = bucket.swap(probe, b"2", tag) if tag else None
    stale = bucket.swap(probe, b"3", tag) if tag else None
    bucket.delete([probe])
    if not swapped or stale:
        return "fail", f"{bucket.address} must compare and swap objects (If-Match), and does not; use another service."
    waiting = len(mirror.pending())
    if waiting:
        return "warn", f"{bucket.address} can be written; {waiting} artifacts wait for the next run to upload them"
    return "ok", f"{bucket.address} can be read and written"


def _dataset(config: DataConfig) -> tuple[str, str]:
    with quiet_stderr():
        from layerflow.data.load import check
    return "ok", f"{config.title}: {check(config)}"


def _weights(data: DataConfig, model: ModelConfig) -> tuple[str, str]:
    what = model.name if is_hub(model.name) else model.weights
    with quiet_stderr():  # KerasHub says which presets it has, and imports TensorFlow
        found = first_weights.check(RetrainConfig(data=data, model=model))
    return "ok", f"{what}: {found}"


def _prefect() -> tuple[str, str]:
    url = configured_url()
    if url is None:
        return "ok", "no server is configured: each run starts one of its own"
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: _ANSWER_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}):
        ensure_answering(url)
    return "ok", f"runs go to the server at {url}, which answers"


def _locks() -> tuple[str, str]:
    files = sorted((store.root() / ".locks").glob("*.lock"))
    held = [f"{file.stem} is held by {_holder(file)}" for file in files if _is_held(file)]
    if held:
        return "warn", f"{'; '.join(held)}. A run that needs it waits until it is free."
    return "ok", "no lock is held"


def _is_held(file: Path) -> bool:
    # A shared lock on a file opened to be read: nothing is written, and whoever wants the lock meanwhile asks again.
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _holder(file: Path) -> str:
    """The process that holds the lock, as far as the system tells: not on macOS, nor from another container."""
    place = file.stat()
    inode = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}:{place.st_ino}"
    try:
        # `1: FLOCK ADVISORY WRITE 4711 fe:00:2884332 0 EOF`
        entries = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(int(entry[4]) for entry in entries if entry[1] == "FLOCK" and entry[5] == inode)
        return f"process {pid} ({shorten(' '.join(psutil.Process(pid).cmdline()), 120, placeholder=' …')})"
    except (OSError, StopIteration, psutil.Error):
        return "a process that the system does not name"
