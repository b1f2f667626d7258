"""A Prefect server that asks for a user and a password."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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


def test_without_the_password_it_is_one_sentence_and_with_it_a_run_is_made(guarded_server: dict[str, str]) -> None:
    wrong = {"PREFECT_API_AUTH_STRING": "operator:guessed"}
    for command, told in (("deploy", {}), ("retrain", {}), ("serve", {}), ("retrain", wrong)):
        refused = layerflow(command, environment={**guarded_server, **told})
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("layerflow: The Prefect server at http://127.0.0.1:")
        assert "set PREFECT_API_AUTH_STRING to" in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert "guessed" not in refused.stderr
    examined = layerflow("doctor", environment=guarded_server)
    assert examined.returncode == 2
    assert "fail  prefect   The Prefect server at" in examined.stdout
    right = {**guarded_server, "PREFECT_API_AUTH_STRING": "operator:secret"}
    ran = layerflow("retrain", "--training.epochs", "2", environment=right)
    assert ran.returncode == 0, ran.stderr
