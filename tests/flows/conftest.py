"""A Prefect server that outlives a run, as `make ui` starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`prefect server start` on a free port, and the environment that reaches it."""
    with started(tmp_path_factory.mktemp("prefect")) as environment:
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


@contextmanager
def started(home: Path, **settings: str) -> Iterator[dict[str, str]]:
    """A server with these settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "LAYERFLOW_STORE": str(home / "store"),
    }
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [PREFECT, "server", "start", "--port", str(port)],
            env={**environment, **settings},
            stdout=log,
            stderr=log,
        )
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
            yield environment
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
