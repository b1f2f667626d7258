"""Deployments and automations on a real server: made once however often, a webhook that is told."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


def layerflow(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def names(kind: str, environment: dict[str, str]) -> list[str]:
    url = f"{environment['PREFECT_API_URL']}/{kind}/filter"
    request = urllib.request.Request(url, b"{}", {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return sorted(each["name"] for each in json.load(answer))


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server on loopback, its address, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/told", received
    server.shutdown()


def test_deploying_twice_doubles_nothing_and_a_promotion_is_told_to_the_webhook(
    lasting_server: dict[str, str], receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    url, received = receiver
    for _ in range(2):
        done = layerflow("deploy", "--webhook", url, environment=lasting_server)
        assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("automation updated") == 2
    assert names("deployments", lasting_server) == ["retrain-digits", "retrain-mnist", "rollback", "sweep-digits"]
    assert names("automations", lasting_server) == [
        "layerflow - a run whose process is gone",
        "layerflow - tell the webhook",
    ]
    ran = layerflow("retrain", "--training.epochs", "3", environment=lasting_server)
    assert ran.returncode == 0, ran.stderr
    deadline = time.monotonic() + 60
    while not received and time.monotonic() < deadline:
        time.sleep(0.2)
    told = next(each for each in received if each["event"] == "layerflow.model.promoted")
    assert told["what"] == "mlp-digits"
    assert (told["details"]["code"], told["details"]["version"]) == ("promoted_first", 1)


def test_a_schedule_fires(lasting_server: dict[str, str]) -> None:
    assert layerflow("deploy", environment=lasting_server).returncode == 0
    url = lasting_server["PREFECT_API_URL"]

    def ask(path: str, content: object) -> Any:
        body = json.dumps(content).encode()
        request = urllib.request.Request(f"{url}/{path}", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    nightly = ask("deployments/filter", {"deployments": {"name": {"any_": ["retrain-digits"]}}})[0]
    due = {"flow_runs": {"deployment_id": {"any_": [nightly["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 90
    while not (runs := ask("flow_runs/filter", due)):
        assert time.monotonic() < deadline, "the server's scheduler has made no run of a nightly deployment"
        time.sleep(0.5)
    assert runs[0]["auto_scheduled"]


def test_without_a_server_deploying_and_serving_are_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    for command in ("deploy", "serve"):
        done = layerflow(command, environment=environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("layerflow: A Prefect server must keep the deployments, and none is configured.")
        assert done.stderr.count("\n") == 1


def test_serving_runs_a_deployment_without_a_worker_and_leaves_its_schedules_active(
    lasting_server: dict[str, str], tmp_path: Path
) -> None:
    with (tmp_path / "serve.log").open("w") as log:
        serving = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve"], cwd=ROOT, env=lasting_server, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 120
            while "prefect deployment run" not in (tmp_path / "serve.log").read_text():
                assert serving.poll() is None, (tmp_path / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
            command = [PREFECT, "--no-prompt", "deployment", "run", "retrain/retrain-digits", "--watch"]
            ran = subprocess.run(
                command, cwd=ROOT, env=lasting_server, capture_output=True, text=True, timeout=240, check=False
            )
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(timeout=60)
    assert ran.returncode == 0, (tmp_path / "serve.log").read_text()
    request = urllib.request.Request(
        f"{lasting_server['PREFECT_API_URL']}/deployments/filter", b"{}", {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        deployments = {each["name"]: each for each in json.load(answer)}
    nightly = deployments["retrain-digits"]
    assert not nightly["paused"]
    assert [each["active"] for each in nightly["schedules"]] == [True]
    assert nightly["schedules"][0]["schedule"]["timezone"] == "Etc/UTC"
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
