"""Real parts for every test: a store, a Prefect server, digits prepared by TFDS, one whole run of the flow."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before Prefect and the flow are imported, which read these once.
_SCRATCH = tempfile.TemporaryDirectory(prefix="layerflow-tests-")
os.environ["PREFECT_HOME"] = f"{_SCRATCH.name}/prefect"
os.environ["LAYERFLOW_STORE"] = f"{_SCRATCH.name}/store"
os.environ.pop("PREFECT_API_URL", None)
MIRROR = os.environ.pop("LAYERFLOW_MIRROR", None) or os.environ.get("LAYERFLOW_TESTS_MIRROR")
if MIRROR:  # for the processes among which the tests are divided: they are started from this one
    os.environ["LAYERFLOW_TESTS_MIRROR"] = MIRROR

import pytest  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402
from prefect.testing.utilities import prefect_test_harness  # noqa: E402

from layerflow import artifacts  # noqa: E402
from layerflow.config import RetrainConfig  # noqa: E402
from layerflow.outcomes import Retrained  # noqa: E402
from layerflow.records import DatasetRef  # noqa: E402
from layerflow.settings.data import DataConfig  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same numbers, whichever ran before it in its process."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def mirror() -> str:
    """The folder of the real MNIST and Fashion-MNIST files."""
    if not MIRROR:
        pytest.skip("LAYERFLOW_MIRROR is not set: the real MNIST files are not at hand")
    return MIRROR


@pytest.fixture(scope="session")
def session_store() -> Path:
    """The store of the session, in which ``first_run`` ran."""
    return Path(_SCRATCH.name) / "store"


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, in force while it runs."""
    folder = tmp_path / "store"
    monkeypatch.setenv("LAYERFLOW_STORE", str(folder))
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A real Prefect server with a database of its own, for the whole session."""
    with prefect_test_harness(server_startup_timeout=180):  # on a busy machine
        yield


@pytest.fixture
def on_the_server(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that a test starts use the session's server: an embedded one takes six seconds each time."""
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))


@pytest.fixture(scope="session")
def first_run(server: None) -> Retrained:
    """One whole run of the flow with its defaults, on the digits, in the session's store."""
    from flows.retrain import retrain

    return retrain(RetrainConfig())


@pytest.fixture(scope="session")
def digits() -> DatasetRef:
    """The digits, prepared through TFDS in the session's store."""
    from layerflow.data.load import load

    return artifacts.make("load_data", "digits-of-the-tests", DatasetRef, lambda folder: load(DataConfig(), folder))
