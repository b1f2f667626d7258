"""What prefect.yaml says."""

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from cli.deploy import _schedule
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
    ]
    for deployment in deployments:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert deployment["work_pool"]["name"] == "layerflow"
        if deployment["name"] != "rollback":
            RetrainConfig.model_validate(deployment["parameters"]["config"])
        if deployment["name"] in ("rollback", "sweep-digits"):
            assert "schedules" not in deployment
        else:
            assert deployment["schedules"][0]["timezone"]


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


def test_no_file_names_a_path_of_one_machine() -> None:
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
