"""Real parts for every test: a store, a Prefect server, datasets prepared by TFDS, all that one run makes."""

import gc
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Before Prefect and the flow are imported, which read these once.
_SCRATCH = tempfile.TemporaryDirectory(prefix="layerflow-tests-")
os.environ["PREFECT_HOME"] = f"{_SCRATCH.name}/prefect"
os.environ["LAYERFLOW_STORE"] = f"{_SCRATCH.name}/store"
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("LAYERFLOW_REMOTE", None)
# The same programs, compiled in half of the time. What LLVM optimizes pays over thousands of steps, as in `make run`.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
MIRROR = os.environ.pop("LAYERFLOW_MIRROR", None) or os.environ.get("LAYERFLOW_TESTS_MIRROR")
if MIRROR:  # for the processes among which the tests are divided: they are started from this one
    os.environ["LAYERFLOW_TESTS_MIRROR"] = MIRROR
# What the processes among which the tests are divided make once and all use: in a folder of the first one.
os.environ.setdefault("LAYERFLOW_TESTS_SHARED", f"{_SCRATCH.name}/shared")

import pytest  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402
from prefect.testing import utilities  # noqa: E402

from layerflow import artifacts  # noqa: E402
from layerflow.config import RetrainConfig  # noqa: E402
from layerflow.export import process  # noqa: E402
from layerflow.outcomes import Retrained  # noqa: E402
from layerflow.records import DatasetRef  # noqa: E402
from layerflow.remote import bucket  # noqa: E402
from layerflow.settings.data import DataConfig  # noqa: E402
from layerflow.settings.gate import PASSWORD  # noqa: E402
from tests import forked, object_store  # noqa: E402
from tests.keys import write_key  # noqa: E402
from tests.servers import give_database  # noqa: E402
from tests.shared import once  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# The verifying process too is a fork, of a parent that has imported TensorFlow alone, but where it is what is tested.
process.subprocess = forked  # type: ignore[assignment]

#: What starts a process, or a server, for whichever test asks for it.
_STARTERS = {"server", "s3_port", "first_run", "trained", "lasting_server", "guarded_server", "ui", "workplace"}
#: The files that take longest, longest first: whatever is short then fills the gaps at the end.
_LONGEST = (
    *("test_server.py", "test_sweep.py", "test_ray.py", "test_main.py", "test_train.py", "test_retrain.py"),
    *(
        "test_families.py",
        "test_docs.py",
        "test_run_from_a_bucket.py",
        "test_sharing.py",
        "test_networks.py",
        "test_forged_verification.py",
        "test_data_command.py",
        "test_streaming.py",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a process through a fixture, and put the longest files first."""
    for item in items:
        if not _STARTERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("process")
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look at two million objects for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()


_running: list[pytest.Item] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Say which test is running, to `_allow`."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def _allow(event: str, arguments: tuple[object, ...]) -> None:
    """Let no test start a process unless it is marked `process`: `make check` leaves those out, to take a minute."""
    if event == "subprocess.Popen" and _running and not _running[-1].get_closest_marker("process"):
        pytest.fail(f"a test that starts a process must be marked `process`. It starts {arguments[1]}")


sys.addaudithook(_allow)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same numbers, whichever ran before it in its process."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Pytest's own, that hears the project also where Prefect's logging has taken its logger away from the root's."""
    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    return caplog


@pytest.fixture
def new_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifying process is a new one, as in a run, and no fork."""
    monkeypatch.setattr(process, "subprocess", subprocess)
    monkeypatch.setattr(importlib.import_module("tasks.verify_export").verifier, "_process", None)


@pytest.fixture(scope="session")
def mirror() -> str:
    """The folder of the real MNIST and Fashion-MNIST files."""
    if not MIRROR:
        pytest.skip("LAYERFLOW_MIRROR is not set: the real MNIST files are not at hand")
    return MIRROR


@pytest.fixture(scope="session")
def session_store() -> Path:
    """The store of this process, in which ``first_run`` is."""
    return Path(_SCRATCH.name) / "store"


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, in force while it runs."""
    folder = tmp_path / "store"
    monkeypatch.setenv("LAYERFLOW_STORE", str(folder))
    return folder


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """An S3 server, for the whole session."""
    with object_store.s3_server() as port:
        yield port


@pytest.fixture
def endpoint(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object_store.Proxy]:
    """The S3 server behind a proxy that can fail, and an empty part of its bucket in force; no pause is long."""
    proxy = object_store.Proxy(s3_port)
    for name, value in object_store.environment_of(proxy.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAYERFLOW_REMOTE", f"s3://{object_store.BUCKET}/{tmp_path.name}")
    monkeypatch.setattr(bucket, "RETRY_DELAYS", (0.01, 0.02))
    monkeypatch.setattr("layerflow.remote.mirror.AWAY_SECONDS", 0)
    bucket.forget()
    yield proxy
    bucket.forget()
    proxy.close()


@pytest.fixture
def enter(endpoint: object_store.Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object_store.Enter:
    """``enter("b")`` puts another store into force, with the same bucket; it begins with ``a``."""

    def change(name: str) -> Path:
        monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / name))
        return tmp_path / name

    change("a")
    return change


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Prefect server with a database of its own, for the whole session."""
    folder = tmp_path_factory.mktemp("server")
    give_database(folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=180):  # on a busy machine
            yield


@pytest.fixture
def on_the_server(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that a test starts use the session's server: an embedded one takes six seconds each time."""
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))


def _made_by_the_steps() -> str:
    """All that the flow makes with its defaults, on the digits: by the same steps, under the same keys."""
    import tasks
    from layerflow.registry.promotion import promote
    from layerflow.registry.receipt import Challenger
    from tasks.caching import make

    config = RetrainConfig()
    devices = config.devices_for_model
    data = make(tasks.load_data, config.data, devices)
    checked = make(tasks.validate_data, config.checks, data, None)
    model = make(tasks.build_model, config.model, data, config.training.seed, devices, None)
    trained = make(tasks.train_model, config.training, config.augment, config.finetune, model, data, devices)
    evaluation = make(tasks.evaluate_model, config.export, trained, data, devices)
    export = make(tasks.export_model, trained, evaluation.serving, data, devices)
    verification = make(tasks.verify_export, export, evaluation, data, config.data)
    made = Challenger(data, checked, model, trained, evaluation, export, verification)
    return Retrained(**made._asdict(), promotion=promote(config, made, "first-run")).model_dump_json()


@pytest.fixture(scope="session")
def first_run(session_store: Path) -> Retrained:
    """All that the flow makes with its defaults, on the digits, in the store of this process; no server is needed."""
    folder, made = once("first-run", _made_by_the_steps)
    shutil.copytree(folder, session_store, dirs_exist_ok=True)
    return Retrained.model_validate_json(made)


@pytest.fixture
def signing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The PEM file of a private key that signs versions, with its public key beside it as ``.pub``."""
    pytest.importorskip("model_signing", reason="OpenSSF model signing is not installed: make sign")
    monkeypatch.delenv(PASSWORD, raising=False)
    return write_key(tmp_path / "signing.pem", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def real_datasets(mirror: str) -> Path:
    """A store with MNIST and Fashion-MNIST, prepared from the mirror's files: ``load_data/<name>`` and ``tfds``."""
    from layerflow.data.load import load

    def prepare() -> str:
        for name in ("mnist", "fashion_mnist"):
            artifacts.make("load_data", name, DatasetRef, partial(load, DataConfig(name=name, mirror=Path(mirror))))
        return ""

    folder, _ = once("real-datasets", prepare)
    return folder


@pytest.fixture(scope="session")
def digits() -> DatasetRef:
    """The digits, prepared through TFDS in the session's store."""
    from layerflow.data.load import load

    return artifacts.make("load_data", "digits-of-the-tests", DatasetRef, lambda folder: load(DataConfig(), folder))
