"""The real thing: a Prefect server, the deployments of prefect.yaml, a worker, a run."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from layerflow.config import RetrainConfig

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


def prefect(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PREFECT, "--no-prompt", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_deployments_are_made_and_a_worker_runs_one_to_its_end(lasting_server: dict[str, str], tmp_path: Path) -> None:
    made = prefect("work-pool", "create", "layerflow", "--type", "process", environment=lasting_server)
    assert made.returncode == 0, made.stderr
    deployed = prefect("deploy", "--all", environment=lasting_server)
    assert deployed.returncode == 0, deployed.stderr
    assert "retrain/retrain-digits" in deployed.stdout
    assert "retrain/retrain-mnist" in deployed.stdout
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "layerflow"],
            env=lasting_server,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
        try:
            ran = prefect("deployment", "run", "retrain/retrain-digits", "--watch", environment=lasting_server)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=60)
    assert ran.returncode == 0, (tmp_path / "worker.log").read_text()
    assert "Completed" in ran.stdout
    assert (Path(lasting_server["LAYERFLOW_STORE"]) / "models" / "mlp-digits" / "1" / "saved_model.pb").is_file()


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
