"""The command `layerflow`, as it is installed, in a process of its own."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import forked
from tests.servers import LAYERFLOW, give_database

ROOT = Path(__file__).resolve().parent.parent


def layerflow(
    *arguments: str,
    store: Path | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    **variables: str,
) -> forked.CompletedProcess[str]:
    """Status, stdout and stderr of the command.

    Args:
        store: Its ``LAYERFLOW_STORE``; default: that of the environment.
        environment: All of its environment; default: this process's.
        cwd: The folder that it runs in.
        **variables: Of the environment, beside the others.
    """
    if store:
        variables["LAYERFLOW_STORE"] = str(store)
    variables = {**(os.environ if environment is None else environment), **variables}
    if "PREFECT_API_URL" not in variables:  # it may start a server
        give_database(Path(variables["PREFECT_HOME"]) / "prefect.db")
    return forked.run(
        [LAYERFLOW, *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


def several(commands: list[list[str]], *, store: Path, **variables: str) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of several commands, run one after the other in one process of their own.

    Args:
        commands: As `tests/programs/commands.py` takes them.
    """
    done = forked.run(
        [sys.executable, str(forked.PROGRAMS / "commands.py")],
        input=json.dumps(commands),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LAYERFLOW_STORE": str(store), **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(answer) for answer in json.loads(done.stdout.splitlines()[-1])]
