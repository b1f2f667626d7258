"""A real server with its deployments: made once however often, run by a worker or from here, seen in a browser."""

import datetime as dt
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests import forked
from tests.command import layerflow
from tests.servers import chromium, opened, running, signed_in

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
DEPLOYMENTS = ["gc", "retrain-digits", "retrain-mnist", "rollback", "sweep-digits"]


def ask(server: dict[str, str], path: str, content: object = None) -> Any:
    return opened(server, path, content or {})


def run_nightly(server: dict[str, str]) -> forked.CompletedProcess[str]:
    while dt.time(2, 59) <= dt.datetime.now(dt.UTC).time() < dt.time(3, 2):
        time.sleep(1)  # at three the schedule starts a run of its own, and this one would be skipped
    command = [PREFECT, "--no-prompt", "deployment", "run", "retrain/retrain-digits", "--watch"]
    return forked.run(command, cwd=ROOT, env=server, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def deployed(lasting_server: dict[str, str], receiver: tuple[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The server, on which `layerflow deploy` was called twice."""
    (kind,) = ask(lasting_server, "block_types/filter", {"block_types": {"slug": {"any_": ["custom-webhook"]}}})
    of_it = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schemas = ask(lasting_server, "block_schemas/filter", of_it)
    told = {"url": receiver[0], "name": "team", "json_data": {"event": "{{subject}}", "body": "{{body}}"}}
    block = {"name": "team", "block_type_id": kind["id"], "block_schema_id": schemas[0]["id"], "data": told}
    ask(lasting_server, "block_documents/", block)
    for _ in range(2):
        arguments = ("--webhook", receiver[0], "--notify", "custom-webhook/team")
        done = layerflow("deploy", *arguments, environment=lasting_server)
        assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("automation updated") == 3
    return lasting_server


@pytest.fixture(scope="module")
def nightly_run(deployed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of the nightly deployment that a worker took, from a folder that is not the project's."""
    folder = tmp_path_factory.mktemp("worker")
    with running(deployed, [PREFECT, "worker", "start", "--pool", "layerflow"], folder / "log", folder):
        ran = run_nightly(deployed)
    assert ran.returncode == 0, (folder / "log").read_text()
    (found,) = ask(deployed, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    return found


def test_deploying_twice_doubles_nothing(deployed: dict[str, str]) -> None:
    assert sorted(each["name"] for each in ask(deployed, "deployments/filter")) == DEPLOYMENTS
    assert sorted(each["name"] for each in ask(deployed, "automations/filter")) == [
        "layerflow - a run whose process is gone",
        "layerflow - send a notification",
        "layerflow - tell the webhook",
    ]


def test_a_worker_publishes_and_the_webhook_is_told(
    deployed: dict[str, str], nightly_run: dict[str, Any], receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    version = Path(deployed["LAYERFLOW_STORE"]) / "models" / "mlp-digits" / "1"
    assert (version / "saved_model.pb").is_file()
    assert {"layerflow", "nightly"} <= set(nightly_run["tags"])
    _, received = receiver
    deadline = time.monotonic() + 60
    while len(received) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    told = next(each for each in received if each["event"] == "layerflow.model.promoted")
    assert told["what"] == "mlp-digits"
    assert (told["details"]["code"], told["details"]["version"]) == ("promoted_first", 1)
    sent = next(each["body"] for each in received if each["event"] == "mlp-digits: promoted")
    reason, accuracy, link = sent.splitlines()
    assert reason.startswith("promoted_first: accuracy 0.9")
    assert re.fullmatch(r"Accuracy 0\.9\d{3} on 360 test images", accuracy)
    assert link.endswith(f"/runs/flow-run/{nightly_run['id']}")


def test_a_notification_needs_a_block_that_is_there(deployed: dict[str, str]) -> None:
    for named in ("custom-webhook/nobody", "webhook/layerflow", "team"):
        done = layerflow("deploy", "--notify", named, environment=deployed)
        assert done.returncode == 2
        assert "--notify must name a notification block of the server, such as slack-webhook/my-block" in done.stderr
        assert f"Received: {named}; create it" in done.stderr


def test_which_run_holds_the_one_place_outlives_a_restart_of_the_server(
    deployed: dict[str, str], nightly_run: dict[str, Any]
) -> None:
    """In memory, the default, it would not: the run would be ended, and the next ones refused."""
    assert (Path(deployed["PREFECT_HOME"]) / "concurrency_leases").is_dir()


def test_a_schedule_fires(deployed: dict[str, str]) -> None:
    nightly = ask(deployed, "deployments/filter", {"deployments": {"name": {"any_": ["retrain-digits"]}}})[0]
    due = {"flow_runs": {"deployment_id": {"any_": [nightly["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 90
    while not (runs := ask(deployed, "flow_runs/filter", due)):
        assert time.monotonic() < deadline, "the server's scheduler has made no run of a nightly deployment"
        time.sleep(0.5)
    assert runs[0]["auto_scheduled"]


def test_a_run_tells_what_it_made_of_what_as_assets(deployed: dict[str, str], nightly_run: dict[str, Any]) -> None:
    wanted = {"filter": {"event": {"prefix": ["prefect.asset.materialization"]}}}
    deadline = time.monotonic() + 60
    while len(found := ask(deployed, "events/filter", wanted)["events"]) < 3:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    made = {each["resource"]["prefect.resource.id"]: each for each in found}
    assert {
        key: [each["prefect.resource.id"] for each in event["related"] if each["prefect.resource.role"] == "asset"]
        for key, event in made.items()
    } == {
        "layerflow://datasets/digits": [],
        "layerflow://trained/mlp-digits": ["layerflow://datasets/digits"],
        "layerflow://models/mlp-digits": ["layerflow://trained/mlp-digits"],
    }
    assert {each["event"] for each in found} == {"prefect.asset.materialization.succeeded"}
    data, trained, published = (made[f"layerflow://{key}"]["payload"] for key in KEYS)
    assert (data["classes"], data["images"]["test"], len(data["digest"])) == (10, 360, 64)
    assert trained["val_accuracy"] > 0.9
    assert (published["version"], published["code"]) == (1, "promoted_first")
    assert published["accuracy"] > 0.9


KEYS = ("datasets/digits", "trained/mlp-digits", "models/mlp-digits")


@pytest.fixture
def two_folders(deployed: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The IDs of the deployments of two folders, each of them the example of prefect.yaml without its marks."""
    lines = (ROOT / "prefect.yaml").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  # - name:"))
    example = "\n".join(line.replace("  # ", "  ", 1) for line in lines[start:] if line.startswith("  #"))
    head = "\n".join(lines[: lines.index("deployments:") + 1])
    file = tmp_path / "folders.yaml"
    file.write_text("\n".join([head, example, example.replace("pets", "birds")]))
    for _ in range(2):
        done = layerflow("deploy", "--file", str(file), environment=deployed)
        assert done.returncode == 0, done.stderr + done.stdout
    names = {"any_": ["retrain-pets", "retrain-birds"]}
    found = ask(deployed, "deployments/filter", {"deployments": {"name": names}})
    yield {each["name"]: each["id"] for each in found}
    for each in found:  # with their automations and runs
        opened(deployed, f"deployments/{each['id']}", method="DELETE")


def test_data_that_came_start_a_run_of_their_dataset_alone(
    deployed: dict[str, str], two_folders: dict[str, str]
) -> None:
    """`prefect event emit` is a process, as whatever brings the data starts it."""
    names = [each["name"] for each in ask(deployed, "automations/filter")]
    assert sorted(name for name in names if "__" in name) == [
        "retrain-birds__automation_1",
        "retrain-pets__automation_1",
    ]
    for name in ("fish", "pets"):  # they are looked at in this order
        command = [PREFECT, "event", "emit", "layerflow.data.arrived", "--resource-id", f"layerflow.data.{name}"]
        assert forked.run(command, env=deployed, capture_output=True, timeout=60).returncode == 0
    deadline = time.monotonic() + 60
    while not (runs := by_events(deployed, two_folders)):
        assert time.monotonic() < deadline, "the event has started no run"
        time.sleep(0.2)
    (run,) = runs
    assert run["deployment_id"] == two_folders["retrain-pets"]
    assert run["parameters"]["config"]["data"]["path"] == "/data/pets"


def by_events(server: dict[str, str], deployments: dict[str, str]) -> list[dict[str, Any]]:
    """The runs of these deployments that no schedule has made."""
    wanted = {"flow_runs": {"deployment_id": {"any_": [*deployments.values()]}}}
    return [run for run in ask(server, "flow_runs/filter", wanted) if not run["auto_scheduled"]]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window, which reaches nothing but this machine."""
    with chromium("host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1") as chrome:
        yield chrome


def page(browser: webdriver.Chrome, address: str, *expected: str) -> str:
    """The text of a page of the UI, once all that is expected is there; its console must hold no error."""
    browser.get(address)
    deadline = time.monotonic() + 60
    while missing := [each for each in expected if each not in (text := str(browser.execute_script(PAGE_TEXT)))]:
        assert time.monotonic() < deadline, f"{address} does not show {missing}: {text}"
        time.sleep(0.2)
    errors = [line["message"] for line in browser.get_log("browser") if not NOT_OURS.search(line["message"])]
    assert not errors, f"{address}: {errors}"
    return text


#: Of Prefect's UI itself: it asks for icons that its server does not have, and for an address outside.
NOT_OURS = re.compile(r"\.svg |favicon|amplitude")
PAGE_TEXT = "return document.body.innerText"
PICTURES = "return [...document.images].filter(i => i.src.startsWith('data:')).map(i => [i.alt, i.naturalWidth])"
#: What each card must say and how many pictures it has at least.
CARDS = {
    "data-digits": (["Data: digits", "train + 83 validation + 360 test"], 2),
    "training-mlp-digits": (["Training: mlp on digits", "is the best by val_loss", "images a second"], 1),
    "evaluation-mlp-digits": (["Evaluation: mlp on digits", "mistakes in 360", "calibration error"], 4),
    "export-mlp-digits": (["Export: mlp on digits", "Verification", "SHA-256"], 0),
    "decision-mlp-digits": (["mlp-digits: version 1 is live", "always answering"], 1),
}


@pytest.mark.drill
@pytest.mark.parametrize("ui", ["", "/v2"])
def test_the_ui_shows_the_run_every_card_with_its_pictures_and_the_form(
    ui: str, deployed: dict[str, str], nightly_run: dict[str, Any], browser: webdriver.Chrome
) -> None:
    link = signed_in(deployed)
    browser.get(link)
    site = link.partition("/sign-in")[0] + ui
    page(browser, f"{site}/runs/flow-run/{nightly_run['id']}", "retrain-mlp-on-digits", "Completed", "8 Task runs")
    found = ask(deployed, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [nightly_run["id"]]}}})
    cards = {each["key"]: each["id"] for each in found if each["type"] == "markdown"}
    assert set(cards) == set(CARDS)
    for key, (said, pictures) in CARDS.items():
        page(browser, f"{site}/artifacts/artifact/{cards[key]}", *said, "To reproduce: layerflow retrain")
        drawn = browser.execute_script(PICTURES)
        assert len(drawn) >= pictures, f"{key}: {drawn}"
        assert all(alt and width > 0 for alt, width in drawn), f"{key}: {drawn}"
    form = f"{site}/deployments/deployment/{nightly_run['deployment_id']}/run"
    page(browser, form, "Maximum number of passes over the training images; at least 1, at most 100,000.", "Run Name")


def test_a_new_database_can_be_read_by_its_owner_alone(lasting_server: dict[str, str]) -> None:
    assert stat.S_IMODE((Path(lasting_server["PREFECT_HOME"]) / "prefect.db").stat().st_mode) == 0o600


@pytest.mark.process
def test_without_a_server_deploying_and_serving_are_one_sentence(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    for command in ("deploy", "serve"):
        done = layerflow(command, environment=environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("layerflow: A Prefect server must keep the deployments, and none is configured.")
        assert done.stderr.count("\n") == 1


@pytest.mark.drill
def test_runs_by_hand_are_tagged_and_tell_what_became_of_the_model(
    deployed: dict[str, str], nightly_run: dict[str, Any], receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    for arguments in (
        ("retrain", "--training.epochs", "1", "--gate.min_accuracy", "1"),
        ("retrain", "--training.epochs", "1", "--gate.force", "see [/wiki] *now*"),
        ("rollback",),
    ):
        done = layerflow(*arguments, environment=deployed)
        assert done.returncode == 0, done.stderr
    assert "version 3 of mlp-digits is live, with the model of version 1 in place of 2" in done.stdout
    runs = ask(deployed, "flow_runs/filter", {"flow_runs": {"tags": {"all_": ["layerflow", "by-hand"]}}})
    assert sorted((run["name"], run["state_name"]) for run in runs) == [
        ("retrain-mlp-on-digits", "Completed"),
        ("retrain-mlp-on-digits", "Completed"),
        ("rollback-mlp-digits", "Completed"),
    ]
    names = ["layerflow.model.kept", "layerflow.model.promoted", "layerflow.model.rolled_back"]
    chosen = {"filter": {"event": {"name": names}, "order": "ASC"}}
    deadline = time.monotonic() + 60
    while len(events := ask(deployed, "events/filter", chosen)["events"]) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    kinds = [each["event"].rpartition(".")[2] for each in events]
    assert kinds == ["promoted", "kept", "promoted", "rolled_back"]
    assert {each["resource"]["prefect.resource.name"] for each in events} == {"mlp-digits"}
    kept, back = events[1]["payload"], events[3]["payload"]
    assert (kept["code"], kept["version"], kept["champion_version"]) == ("kept_below_floor", 1, 1)
    assert (back["version"], back["restored"], back["instead_of"]) == (3, 1, 2)
    while not any(each["event"] == names[2] for each in receiver[1]):
        assert time.monotonic() < deadline, "the webhook was not told of the rollback"
        time.sleep(0.2)


@pytest.mark.drill
def test_serving_runs_a_deployment_without_a_worker_and_leaves_its_schedules_active(
    deployed: dict[str, str], nightly_run: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "serve.log"
    with running(deployed, [sys.executable, "-m", "cli.main", "serve"], output):
        deadline = time.monotonic() + 120
        while "prefect deployment run" not in output.read_text():
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        ran = run_nightly(deployed)
    assert ran.returncode == 0, output.read_text()
    nightly = next(each for each in ask(deployed, "deployments/filter") if each["name"] == "retrain-digits")
    assert not nightly["paused"]
    assert [each["active"] for each in nightly["schedules"]] == [True]
    assert nightly["schedules"][0]["schedule"]["timezone"] == "Etc/UTC"
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


@pytest.mark.drill
def test_other_pools_take_the_deployments_over_and_the_process_pool_takes_them_back(deployed: dict[str, str]) -> None:
    first = layerflow("deploy", "--file", "pools/docker.yaml", environment=deployed)
    assert first.returncode == 1
    assert "`prefect deploy --all` must succeed" in first.stderr  # the pool is not there; Prefect says so
    create = [PREFECT, "--no-prompt", "work-pool", "create", "layerflow-docker", "--type", "docker"]
    forked.run(create, cwd=ROOT, env=deployed, capture_output=True, timeout=120, check=True)
    for arguments, pool in ((["--file", "pools/docker.yaml"], "layerflow-docker"), ([], "layerflow")):
        assert layerflow("deploy", *arguments, environment=deployed).returncode == 0
        found = ask(deployed, "deployments/filter")
        assert sorted(each["name"] for each in found) == DEPLOYMENTS
        assert {each["work_pool_name"] for each in found} == {pool}
