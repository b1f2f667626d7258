"""The processes of the trials: started, stopped together, and never left behind."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import SweepError
from layerflow.records import DatasetRef
from layerflow.sweeps.outcomes import StudyRef

log = logging.getLogger("layerflow")


ROOT = Path(__file__).resolve().parents[2]
#: The processes of the trials that run now.
_processes: set[subprocess.Popen[str]] = set()
#: Set when the sweep ends before its time. A trial that is about to start then, or waits to be retried, does not.
is_stopped = threading.Event()
#: Held while a process starts and while all are stopped: none may come in between.
_starting = threading.Lock()


def log_of(number: int, study: StudyRef) -> Path:
    return store.path(study.folder) / f"trial-{number}.log"


@contextlib.contextmanager
def trial_process(
    number: int, config: RetrainConfig, data: DatasetRef, study: StudyRef
) -> Iterator[subprocess.Popen[str]]:
    """The trial's process, which is gone afterwards.

    Raises:
        SweepError: If the sweep was stopped meanwhile.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with _starting:
        if is_stopped.is_set():
            raise SweepError(f"The sweep must be running for trial {number} to start. It was stopped; re-run it.")
        with log_of(number, study).open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.trials.child"],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,  # closed by the system when this process ends, however it ends
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the sweep, which then lets its trials save their checkpoints
            )
        _processes.add(process)
    try:
        assert process.stdin
        request = {"config": config.model_dump(mode="json"), "data": data.model_dump(mode="json")}
        # It has gone already: its status says how. Or the sweep was stopped, and the pipe is closed.
        with contextlib.suppress(BrokenPipeError, ValueError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        yield process
    finally:
        _processes.discard(process)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                assert pipe
                pipe.close()


def stop_trials() -> None:
    """Let the trials of this process save their checkpoints and end, and no other one start."""
    with _starting:
        is_stopped.set()
        for process in list(_processes):
            with contextlib.suppress(OSError):
                assert process.stdin
                process.stdin.close()
