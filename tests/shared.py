"""What tests share, and what is made once for all the processes among which they are divided."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from layerflow.parts import parts_of

#: Settings of trainings that are about something else than XLA, by which compiling takes longer than they do.
GRAPH = {"compile": "graph"}


def once(name: str, make: Callable[[], str]) -> tuple[Path, str]:
    """A store that one process of the session fills by ``make``, and what that returned; the others find both.

    Args:
        make: Called with the store in force.
    """
    shared = Path(os.environ["LAYERFLOW_TESTS_SHARED"])  # tests/conftest.py sets it
    shared.mkdir(exist_ok=True)
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"), pytest.MonkeyPatch.context() as patch:
        if not made.exists():
            patch.setenv("LAYERFLOW_STORE", str(folder))
            made.write_text(make())
    return folder, made.read_text()


def copy_artifact(folder: str, source: Path, target: Path) -> None:
    """Copy an artifact, such as ``load_data/<key>``, and its parts from one store to another."""
    for each in (folder, *parts_of(source / folder)):
        shutil.copytree(source / each, target / each, dirs_exist_ok=True)
