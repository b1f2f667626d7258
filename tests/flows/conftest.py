"""A Prefect server that outlives a run, as `make ui` starts it."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`layerflow ui` on a free port, and the environment that reaches it."""
    with ui_started(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture
def guarded_server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that asks for a user and a password, and an environment that has neither."""
    with started(tmp_path, PREFECT_SERVER_API_AUTH_STRING="operator:secret") as environment:
        yield environment


#: Several commands one after the other, for importing all that one needs takes longer than most of them.
_COMMANDS = """
import contextlib, io, json, sys
from cli.main import main
answers = []
for arguments in json.loads(sys.argv[1]):
    sys.argv, out, err, status = ["layerflow", *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            status = left.code
    answers.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


def in_one_process(*commands: tuple[str, ...], environment: dict[str, str]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each of these commands of layerflow."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, json.dumps(commands)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout.splitlines()[-1])]


def opened(server: dict[str, str], path: str, content: object = None, **headers: str) -> Any:
    """What the API of `ui_started` answers to its own user."""
    profile = tomllib.loads((Path(server["PREFECT_HOME"]) / "profiles.toml").read_text())["profiles"]["layerflow"]
    token = base64.b64encode(profile["PREFECT_API_AUTH_STRING"].encode()).decode()
    body = None if content is None else json.dumps(content).encode()
    headers = {"content-type": "application/json", "authorization": f"Basic {token}", **headers}
    request = urllib.request.Request(f"{profile['PREFECT_API_URL']}/{path}", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


@contextmanager
def ui_started(home: Path) -> Iterator[dict[str, str]]:
    """`layerflow ui`, an environment that reaches it by its profile alone, and the link that signs a browser in."""
    port = free_port()
    environment = {**os.environ, "PREFECT_HOME": str(home), "LAYERFLOW_STORE": str(home / "store")}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "cli.main", "ui", "--port", str(port)]
    with answering(command, port, home, environment):
        yield {**environment, "PREFECT_PROFILE": "layerflow"}


def signed_in(server: dict[str, str]) -> str:
    """The link of `layerflow ui`."""
    profile = tomllib.loads((Path(server["PREFECT_HOME"]) / "profiles.toml").read_text())["profiles"]["layerflow"]
    token = base64.b64encode(profile["PREFECT_API_AUTH_STRING"].encode()).decode()
    return profile["PREFECT_API_URL"].removesuffix("api") + f"sign-in#{token}"


@contextmanager
def started(home: Path, **settings: str) -> Iterator[dict[str, str]]:
    """Prefect's own server with these settings, and an environment that has none of them."""
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
def answering(command: list[str], port: int, home: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server that answers, until the test is over."""
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, (home / "server.log").read_text()
                    assert server.poll() is None, (home / "server.log").read_text()
                    time.sleep(0.2)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
