"""What prefect.yaml says."""

import asyncio
import json
import os
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from jinja2.sandbox import SandboxedEnvironment
from prefect.flows import load_flow_from_entrypoint
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Suspended

from cli import leases, server, ui
from cli.deploy import _require_unhidden, _schedule, _tell_of_other_settings, _trigger
from cli.init import init
from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_every_deployment_has_a_valid_config_a_schedule_and_one_run_at_a_time() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [deployment["name"] for deployment in deployments] == [
        "retrain-digits",
        "retrain-mnist",
        "rollback",
        "sweep-digits",
        "gc",
    ]
    for deployment in deployments:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert deployment["work_pool"]["name"] == "layerflow"
        load_flow_from_entrypoint(deployment["entrypoint"]).validate_parameters(deployment["parameters"])
        if deployment["name"] in ("rollback", "sweep-digits"):
            assert "schedules" not in deployment
        else:
            assert deployment["schedules"][0]["timezone"]


def test_the_webhook_is_told_in_json_whatever_a_run_is_called() -> None:
    _, told, _ = yaml.safe_load((ROOT / "automations.yaml").read_text())
    event = {"event": "e", "resource": {"name": 'my "night"'}, "payload": {"reason": "it's\nworse"}}
    rendered = SandboxedEnvironment().from_string(told["actions"][0]["payload"]).render(event=event)
    assert json.loads(rendered) == {"event": "e", "what": 'my "night"', "details": event["payload"]}


def test_a_run_that_ended_or_waits_to_be_started_again_is_not_taken_for_dead() -> None:
    dead, *_ = yaml.safe_load((ROOT / "automations.yaml").read_text())
    told = {each.removeprefix("prefect.flow-run.") for each in dead["trigger"]["expect"]}
    assert "layerflow.run.suspended" in told
    assert told >= {state.__name__ for state in (Completed, Failed, Cancelled, Crashed, AwaitingRetry, Suspended)}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {
                **{"code": "promoted_better", "reason": "better", "accuracy": 0.9761, "test_examples": 10000},
                "comparison": {
                    **{"metric": "macro F1", "difference": 0.0038},
                    **{"difference_low": 0.0009, "difference_high": 0.0066},
                },
                **{"candidate": None, "until": ""},
            },
            [
                "promoted_better: better",
                "Accuracy 0.9761 on 10000 test images",
                "Better than the live version by +0.0038 in macro F1 (95 % interval +0.0009 to +0.0066)",
            ],
        ),
        (
            {"code": "waiting_for_approval", "reason": "first", "comparison": None, "candidate": 3, "until": "Friday"},
            [
                "waiting_for_approval: first",
                "Approve or reject candidate 3 until Friday: Resume the run, or layerflow approve a",
            ],
        ),
        ({"version": 3, "restored": 1}, ["Version 3 is live, with the model of version 1"]),
    ],
)
def test_a_notification_says_the_decision_and_its_figures(payload: dict[str, object], expected: list[str]) -> None:
    *_, sent = yaml.safe_load((ROOT / "automations.yaml").read_text())
    event = {"event": "layerflow.model.rolled_back", "resource": {"name": "a"}, "payload": payload}
    environment = SandboxedEnvironment()
    environment.filters["ui_url"] = lambda run: f"http://server/{run}"
    for run, link in ((None, []), ("run", ["http://server/run"])):
        rendered = environment.from_string(sent["actions"][0]["body"]).render(event=event, flow_run=run)
        assert rendered.splitlines() == [*expected, *link]
    assert environment.from_string(sent["actions"][0]["subject"]).render(event=event) == "a: rolled back"


@pytest.mark.parametrize(
    ("target", "port", "command"),
    [
        ("ui", "PORT=4311", "layerflow ui --port 4311"),
        ("ui", "", "layerflow ui"),
        ("tensorboard", "PORT=6007", "tensorboard --port 6007 --logdir"),
        ("tensorboard", "", "tensorboard --logdir"),
    ],
)
@pytest.mark.process
def test_make_hands_a_port_on(target: str, port: str, command: str) -> None:
    """What `make` would run only `make` knows."""
    arguments = ["make", "--no-print-directory", "--dry-run", target, *filter(None, [port])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert command in " ".join(done.stdout.splitlines()[-1].split())


def test_a_server_that_is_away_for_five_minutes_ends_no_run() -> None:
    """The three clocks that run meanwhile: of the client's tries, of the lease, and of the automation."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prefect"]
    waits = [2**attempt for attempt in range(1, settings["client"]["max_retries"] + 1)]
    shortest = 0.8 * sum(waits)  # Prefect's client draws each wait from 80 to 120 % of it
    assert shortest > 300
    # The last renewal can be 225 seconds old when the server goes, and the last wait can begin just before it is back.
    assert leases.LEAST.total_seconds() > 225 + 300 + 1.2 * waits[-1]
    dead, *_ = yaml.safe_load((ROOT / "automations.yaml").read_text())
    assert dead["trigger"]["within"] >= 300 + 1.2 * waits[-2] + settings["flows"]["heartbeat_frequency"]
    assert settings["server"]["concurrency"]["lease_storage"] == leases.__name__


def test_a_lease_is_renewed_for_longer_than_the_server_may_be_away(
    tmp_path: Path,
) -> None:
    async def renewed() -> float:
        storage = leases.ConcurrencyLeaseStorage(storage_path=tmp_path)
        lease = await storage.create_lease([uuid4()], timedelta(seconds=300))
        assert await storage.renew_lease(lease.id, timedelta(seconds=300))
        assert not await storage.renew_lease(uuid4(), timedelta(seconds=300))
        found = await storage.read_lease(lease.id)
        return (found.expiration - datetime.now(UTC)).total_seconds()

    assert asyncio.run(renewed()) == pytest.approx(leases.LEAST.total_seconds(), abs=60)


def test_served_schedules_are_those_of_prefect_yaml_or_one_sentence() -> None:
    off, hourly, daily = retrain.to_deployment(
        name="served",
        schedules=[
            _schedule({"cron": "0 3 * * *", "active": False}),
            _schedule({"interval": 3600, "timezone": "Europe/Berlin", "parameters": {"config": {}}}),
            _schedule({"rrule": "FREQ=DAILY"}),
        ],
    ).schedules
    assert (off.active, off.schedule.cron, off.schedule.timezone) == (False, "0 3 * * *", "UTC")
    assert (hourly.active, hourly.schedule.interval, hourly.schedule.timezone) == (
        True,
        timedelta(hours=1),
        "Europe/Berlin",
    )
    assert hourly.parameters == {"config": {}}
    assert daily.schedule.rrule.endswith("FREQ=DAILY")
    for wrong in (
        {},
        {"corn": "0 3 * * *"},
        {"cron": "nightly"},
        {"interval": "3h"},
        {"cron": "0 3 * * *", "rrule": "x"},
    ):
        with pytest.raises(ConfigError, match="must have one of cron, interval \\(in seconds\\) and rrule") as caught:
            _schedule(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.process
def test_no_file_names_a_path_of_one_machine() -> None:
    """Which files are in the project only git knows."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and file.suffix in (".py", ".yaml", ".toml", ".md", ".lock", ""):
            assert str(ROOT) not in file.read_text(errors="replace"), name


def test_the_example_of_a_folder_is_a_deployment_once_its_marks_are_away() -> None:
    lines = (ROOT / "prefect.yaml").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  # - name:"))
    text = "\n".join(line.replace("  # ", "  ", 1) for line in lines[start:] if line.startswith("  #"))
    head = "\n".join(lines[: next(number for number, line in enumerate(lines) if line == "deployments:") + 1])
    example = yaml.safe_load(f"{head}\n{text}")["deployments"][0]
    config = RetrainConfig.model_validate(example["parameters"]["config"])
    assert (config.data.title, config.data.size, config.model.name) == ("pets", (32, 32), "cnn")
    assert example["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    (trigger,) = map(_trigger, example["triggers"])
    assert trigger.expect == {"layerflow.data.arrived"}
    assert trigger.match.root == {"prefect.resource.id": f"layerflow.data.{config.data.title}"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"type": "evnt"}, "input tag 'evnt'"),
        ({"type": "event", "within": "x"}, "within: input should be"),
        ({"match": {"prefect.resource.id": "a"}}, "without expect, every event would start a run"),
        (
            {"match": {"prefect.resource.id": "a"}, "expects": ["a"]},
            r"no field is called expects \(did you mean expect",
        ),
        ("event", "input should be"),
    ],
)
def test_a_wrong_trigger_is_one_sentence(wrong: Any, why: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^A trigger of prefect\.yaml must be one of Prefect's, such as .*Received: .*{why}"
    ) as caught:
        _trigger(wrong)
    assert "\n" not in str(caught.value)


def test_deploy_names_what_differs_from_the_settings_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.chdir(init("mypets", None))
    _tell_of_other_settings(Path("prefect.yaml"))
    assert capsys.readouterr().err == ""
    settings = Path("layerflow.yaml").read_text()
    Path("layerflow.yaml").write_text(settings.replace("epochs: 60", "epochs: 5").replace("digits", "mnist"))
    _tell_of_other_settings(Path("prefect.yaml"))
    told = "warning: deployment mypets-nightly and layerflow.yaml differ in data.name, training.epochs\n"
    assert capsys.readouterr().err == told


def test_deploy_names_a_folder_that_would_hide_a_package_from_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    _require_unhidden()  # a folder without __init__.py hides nothing
    (tmp_path / "tasks" / "__init__.py").touch()
    with pytest.raises(
        ConfigError, match=r"^layerflow has a package tasks, .*Rename that folder, such as to mytasks\.$"
    ):
        _require_unhidden()
    monkeypatch.chdir(ROOT)
    _require_unhidden()


def test_outside_a_clone_servers_and_commands_have_the_settings_of_pyproject() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prefect"]
    given = server.settings(4200, "")
    assert given["PREFECT_SERVER_ANALYTICS_ENABLED"] == str(told["server"]["analytics_enabled"]).lower()
    assert given["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == told["server"]["concurrency"]["lease_storage"]
    assert {
        "PREFECT_CLIENT_MAX_RETRIES": told["client"]["max_retries"],
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": told["flows"]["heartbeat_frequency"],
    } == ui._CLIENT
