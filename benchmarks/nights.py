"""Nights that go wrong, in minutes: a real Prefect server, a real worker, schedules, and what `layerflow deploy` makes.

Usage: ``python benchmarks/nights.py [ACT …]``. On the digits, in a store of its own, about an hour; four acts:

1. A schedule fires every five seconds over runs that last longer: never two at once, and every run ends.
2. Worker and run are killed in mid-training: the automation marks the run as crashed, and the next one goes on where
   the training was, and publishes.
3. The server is away for five minutes in mid-run, which then has to confirm its place with it: the run completes, the
   store is whole, and the deployment takes another run.
4. The server is killed at each of the eight task boundaries of a run, and started again 20 seconds later: all eight
   runs complete. A state that the server had received and not yet written when it was killed is missing in its UI.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PREFECT = str(Path(sys.executable).with_name("prefect"))
#: A training of about twenty seconds, whatever its loss does.
LONG = {"training": {"epochs": 6000, "patience": 6000, "checkpoint_seconds": 1}}
#: One of more than the 225 seconds after which a run confirms that it holds its deployment's one place.
LONGER = {"training": {"epochs": 15_000, "patience": 15_000, "batch_size": 1, "checkpoint_seconds": 5}}
CONFIRMS_SECONDS = 225
#: Seconds for which a server may be away, at any moment of a run.
AWAY_SECONDS = 300
#: What a run leaves in the store, in this order: each is the boundary before the next task.
STEPS = ("load_data", "validate_data", "build_model", "train_model", "evaluate_model", "export_model", "verify_export")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Night:
    """A server and a worker, and what can be asked of them."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home, self.url = home, f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.url,
            "LAYERFLOW_STORE": str(home / "store"),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Prefect process, its output in a file."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([PREFECT, *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self.server = self.start("server", "server", "start", "--port", str(self.port))
        wait("the server answers", self.answers)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of the pool that `layerflow deploy` makes."""
        return self.start("worker", "worker", "start", "--pool", "layerflow")

    def answers(self) -> bool:
        """Whether the server does."""
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def ask(self, path: str, content: Any = None, method: str = "POST") -> Any:
        """What the server's API answers, once its SQLite is not busy with something else."""
        body = json.dumps(content or {}).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", body, {"content-type": "application/json"}, method=method
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)
        sys.exit(f"the server is too busy to answer {path}")

    def deployment(self) -> str:
        """The id of the nightly deployment."""
        found = self.ask("deployments/filter", {"deployments": {"name": {"any_": ["retrain-digits"]}}})
        return str(found[0]["id"])

    def run(self, config: dict[str, Any]) -> str:
        """Ask for a run of the nightly deployment; its id."""
        made = self.ask(
            f"deployments/{self.deployment()}/create_flow_run",
            {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}},
        )
        return str(made["id"])

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs."""
        return self.ask("flow_runs/filter", {"sort": "START_TIME_ASC", "limit": 200})

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(next(each["state_type"] for each in self.runs() if each["id"] == run))

    def tasks(self, run: str) -> list[str]:
        """The types of the states of a run's tasks."""
        found = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
        return [str(each["state_type"]) for each in found]

    def logs(self, run: str) -> str:
        """What a run logged."""
        found = self.ask(
            "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
        )
        return "\n".join(each["message"] for each in found)

    def layerflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of layerflow."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def end(self) -> None:
        """End what was started."""
        for process in reversed(self.started):
            kill(process) if process.poll() is None else None


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and all that it started, as a machine that loses its power does."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def wait(what: str, until: Callable[[], Any], seconds: float = 400) -> Any:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not (value := until()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.3)
    return value


def require(condition: Any, what: str) -> None:
    """End with what was expected, unless it holds."""
    if not condition:
        sys.exit(f"WRONG: {what}")


def overlapping_nights(night: Night) -> str:
    """A schedule that fires every five seconds, for a minute, and until two runs have completed."""
    deployment = night.deployment()
    schedule = {"schedule": {"interval": 5}, "active": True}
    made = night.ask(f"deployments/{deployment}/schedules", [schedule])[0]
    time.sleep(60)
    wait("two runs complete", lambda: sum(each["state_type"] == "COMPLETED" for each in night.runs()) > 1)
    night.ask(f"deployments/{deployment}/schedules/{made['id']}", method="DELETE")
    due = [each for each in night.runs() if each["state_type"] == "SCHEDULED"]
    for each in due:  # those that the scheduler made for later
        night.ask(f"flow_runs/{each['id']}", method="DELETE")
    wait("all runs end", lambda: {each["state_type"] for each in night.runs()} <= FINAL)
    runs = night.runs()
    times = [(each["start_time"], each["end_time"]) for each in runs if each["state_type"] == "COMPLETED"]
    spans = sorted(tuple(datetime.fromisoformat(moment) for moment in span) for span in times)
    require(all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "never two at once")
    ended = Counter(each["state_type"] for each in runs)
    require(set(ended) <= {"COMPLETED", "CANCELLED"}, f"runs complete or are cancelled: {dict(ended)}")
    listed = json.loads(night.layerflow("models", "--json").stdout)
    require(len(listed) == 1, f"one version for one data: {listed}")
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(ended.items()))


def killed_worker(night: Night, worker: subprocess.Popen[bytes]) -> str:
    """Worker and run die in mid-training."""
    first = night.run(LONG)
    checkpoints = night.home / "store" / "checkpoints"
    known = set(checkpoints.glob("*/*"))
    wait("a checkpoint is written", lambda: set(checkpoints.glob("*/*")) - known)
    time.sleep(3)
    kill(worker)
    began = time.monotonic()
    wait("the automation marks the run as crashed", lambda: night.state(first) == "CRASHED", 800)
    noticed = time.monotonic() - began
    night.start_worker()
    second = night.run(LONG)
    wait("the next run ends", lambda: night.state(second) in FINAL)
    require(night.state(second) == "COMPLETED", f"the next run completes: {night.state(second)}")
    resumed = next((line for line in night.logs(second).splitlines() if "resuming at epoch" in line), "")
    require(resumed, "the next run resumes the training")
    return f"crashed after {noticed:.0f} s without heartbeats; then: {resumed}"


def server_away(night: Night) -> str:
    """The server is stopped for five minutes while a run trains."""
    began = time.monotonic()
    run = night.run(LONGER)
    checkpoints = night.home / "store" / "checkpoints"
    known = set(checkpoints.glob("*/*"))
    wait("a checkpoint is written", lambda: set(checkpoints.glob("*/*")) - known)
    kill(night.server)
    time.sleep(AWAY_SECONDS)
    night.start_server()
    wait("the run ends", lambda: night.state(run) in FINAL, 1800)
    require(night.state(run) == "COMPLETED", f"the run completes: {night.state(run)}")
    took = time.monotonic() - began
    require(took > CONFIRMS_SECONDS, f"the run outlasts {CONFIRMS_SECONDS} s, and took {took:.0f}")
    another = night.run({})
    wait("another run ends", lambda: night.state(another) in FINAL)
    require(night.state(another) == "COMPLETED", f"another run completes: {night.state(another)}")
    checked = night.layerflow("models", "verify")
    require(checked.returncode == 0, f"every version is whole: {checked.stderr}")
    return f"the run completed after {took:.0f} s, another one too, every version is whole"


def restarted_at_each_boundary(night: Night) -> str:
    """The server is killed as soon as one of the eight tasks is about to start, once for each of them."""
    seconds, shown = [], []
    for number, step in enumerate((None, *STEPS)):
        folder = night.home / "store" / (step or "")
        known = set(folder.glob("[!.]*/record.json"))
        began = time.monotonic()
        # Other data, so that no step is `Cached`.
        run = night.run({"data": {"validation_fraction": 0.1 + number / 100}, "training": {"epochs": 2}})
        if step is None:
            wait("the run starts", lambda run=run: night.state(run) == "RUNNING")
        else:
            wait(f"{step} ends", lambda folder=folder, known=known: set(folder.glob("[!.]*/record.json")) - known)
        kill(night.server)
        time.sleep(20)
        night.start_server()
        wait("the run ends", lambda run=run: night.state(run) in FINAL, 900)
        place = f"before task {number + 1}, after {step or 'the start'}"
        require(night.state(run) == "COMPLETED", f"{place}, the run completes: {night.state(run)}")
        seconds.append(time.monotonic() - began)
        time.sleep(5)  # for the last states
        shown.append(len(night.tasks(run)))
    took = f"in {min(seconds):.0f} to {max(seconds):.0f} s"
    return f"eight runs completed {took}; the UI shows {min(shown)} to {max(shown)} of eight tasks"


def main() -> None:
    """The four acts, or those whose numbers are named."""
    acts = {int(each) for each in sys.argv[1:]} or {1, 2, 3, 4}
    with tempfile.TemporaryDirectory(prefix="layerflow-nights-") as home:
        night = Night(Path(home))
        try:
            night.start_server()
            made = night.layerflow("deploy")
            require(made.returncode == 0, made.stdout + made.stderr)
            worker = night.start_worker()
            if 1 in acts:
                print("a schedule over longer runs:", overlapping_nights(night), flush=True)
            if 2 in acts:
                print("worker killed in mid-training:", killed_worker(night, worker), flush=True)
            if 3 in acts:
                print("server away in mid-run:", server_away(night), flush=True)
            if 4 in acts:
                print("server restarted at each task boundary:", restarted_at_each_boundary(night), flush=True)
        finally:
            night.end()


if __name__ == "__main__":
    main()
