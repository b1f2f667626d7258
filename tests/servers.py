"""Servers that tests start, how their API is asked, and a browser for their pages."""

import base64
import json
import os
import shutil
import signal
import socket
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from layerflow import store
from tests import forked
from tests.shared import once

ROOT = Path(__file__).resolve().parent.parent
LAYERFLOW, PREFECT = (Path(sys.executable).with_name(name) for name in ("layerflow", "prefect"))


def give_database(file: Path) -> None:
    """Put the database of a first start there, unless there is one: Prefect needs 15 seconds to make it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(once("prefect-home", _start_for_the_first_time)[0] / "prefect.db", file)


def _start_for_the_first_time() -> str:
    with _ui_started(store.root(), free_port()):
        return ""


@contextmanager
def ui_started(home: Path, port: int | None = None) -> Iterator[dict[str, str]]:
    """`layerflow ui`, and an environment that reaches it by its profile alone."""
    give_database(home / "prefect.db")
    with _ui_started(home, port or free_port()) as environment:
        yield environment


@contextmanager
def _ui_started(home: Path, port: int) -> Iterator[dict[str, str]]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "PREFECT_HOME": str(home), "LAYERFLOW_STORE": str(home / "store")}
    environment.pop("PREFECT_API_URL", None)
    with answering([LAYERFLOW, "ui", "--port", str(port)], port, home, environment):
        yield {**environment, "PREFECT_PROFILE": "layerflow"}


@contextmanager
def started(home: Path, **settings: str) -> Iterator[dict[str, str]]:
    """Prefect's own server with these settings, and an environment that has none of them."""
    give_database(home / "prefect.db")
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "LAYERFLOW_STORE": str(home / "store"),
    }
    command = [PREFECT, "server", "start", "--port", str(port)]
    with answering(command, port, home, {**environment, **settings}):
        yield environment


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_started(home: Path) -> Iterator[int]:
    """MLflow's own server over a database of SQLite, and its port.

    It is the application that ``mlflow server`` starts in two more processes, which takes twice as long.
    """
    database, port = f"sqlite:///{home / 'mlflow.db'}", free_port()
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(home / "artifacts"),
    }
    command = [sys.executable, "-m", "flask", "--app", "mlflow.server:app", "run", "--port", str(port)]
    first = "api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"  # makes the database
    with answering(command, port, home, environment, first):
        yield port


@contextmanager
def answering(
    command: list[str | Path], port: int, home: Path, environment: dict[str, str], path: str = "api/health"
) -> Iterator[None]:
    """A server that answers, until the test is over."""
    with (home / "server.log").open("w") as log:
        server = forked.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, (home / "server.log").read_text()
                    assert server.poll() is None, (home / "server.log").read_text()
                    time.sleep(0.2)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def opened(server: dict[str, str], path: str, content: object = None, method: str | None = None, **headers: str) -> Any:
    """What the API of `ui_started` answers to its own user."""
    api, password = _profile(server)
    token = base64.b64encode(password.encode()).decode()
    body = None if content is None else json.dumps(content).encode()
    headers = {"content-type": "application/json", "authorization": f"Basic {token}", **headers}
    request = urllib.request.Request(f"{api}/{path}", body, headers, method=method)
    for pause in (1, 2, 4, None):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            # Prefect's server answers so while its database is busy, and Prefect's client asks again.
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or pause is None:
                raise
            time.sleep(pause)


def signed_in(server: dict[str, str]) -> str:
    """The link of `layerflow ui`, which signs a browser in."""
    api, password = _profile(server)
    return api.removesuffix("api") + f"sign-in#{base64.b64encode(password.encode()).decode()}"


def _profile(server: dict[str, str]) -> tuple[str, str]:
    """The address of the API of `ui_started`, and its user and password."""
    profile = tomllib.loads((Path(server["PREFECT_HOME"]) / "profiles.toml").read_text())["profiles"]["layerflow"]
    return profile["PREFECT_API_URL"], profile["PREFECT_API_AUTH_STRING"]


@contextmanager
def chromium(*flags: str) -> Iterator[webdriver.Chrome]:
    """Chromium without a window and with these flags, which keeps the errors of its pages' consoles."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless=new", "no-sandbox", "disable-gpu", *flags):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


@contextmanager
def running(server: dict[str, str], command: list[str], output: Path, folder: Path = ROOT) -> Iterator[None]:
    """A process that goes on until it is ended, as `serve` and a worker do."""
    with output.open("w") as log:
        process = forked.Popen(command, cwd=folder, env=server, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
