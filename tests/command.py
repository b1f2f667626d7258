"""The command `layerflow`, as it is installed, in a process of its own."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
LAYERFLOW = Path(sys.executable).with_name("layerflow")


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
    return forked.run(
        [LAYERFLOW, *arguments],
        cwd=cwd,
        env={**(os.environ if environment is None else environment), **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
