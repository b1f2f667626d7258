"""A trial of a sweep: one training, in a process of its own, given up where others are better."""

import json
import logging
import math
import platform
from typing import Any, cast

from prefect import Task
from prefect.states import Completed, State

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import SweepError, TrialError, UnreachableError
from layerflow.records import DatasetRef, Epoch, TrainedRef
from layerflow.sweeps.outcomes import StudyRef
from layerflow.sweeps.study import Study
from tasks import logs
from tasks.cards import show_card
from tasks.policy import as_task
from tasks.trials.process import log_of, trial_process

log = logging.getLogger("layerflow")


def _run_trial(number: int, config: RetrainConfig, data: DatasetRef, study: StudyRef) -> State[float | None]:
    """Train with the settings of a trial; give its best figure, or none where it was given up.

    Raises:
        SweepError: If the sweep is not in the store that this machine sees.
    """
    logs.install()
    if not Study.exists(study):
        raise SweepError(
            f"Every node must see the store of the sweep, and {platform.node()} finds no {store.path(study.folder)}; "
            "mount it there under the same path."
        )
    trials = Study(study)
    known = len(trials.trials[number].curve)
    if known and trials.is_worse(number):
        return _pruned(known)  # the sweep was killed when it had just been found out

    def worse(epoch: Epoch) -> bool:
        """Note an epoch that is not known yet. One that comes before its time is noted with the whole history."""
        nonlocal known
        if epoch.epoch != known + 1:
            return False
        known += 1
        return trials.note_epoch(number, epoch.epoch, getattr(epoch, study.monitor))

    with trial_process(number, config, data, study) as process:
        assert process.stdout
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # killed in the middle of it
            answer = json.loads(line)
            if "log" in answer:
                log.log(answer["level"], answer["log"])
            elif "epoch" in answer and worse(Epoch(epoch=answer["epoch"], seconds=0, **answer["figures"])):
                return _pruned(known)
            elif "error" in answer:
                raise _error_of(number, answer)
            elif "trained" in answer:
                trained = TrainedRef.model_validate(answer["trained"])
                if any(worse(epoch) for epoch in trained.history):
                    return _pruned(known)
                card = store.path(trained.card).read_text(encoding="utf-8")
                key = f"training-{config.registry_name}-trial-{number}"
                show_card(key, card, f"Training of trial {number}: loss and accuracy by epoch, speed", config)
                best = getattr(trained.history[trained.best_epoch - 1], study.monitor)
                if not math.isfinite(best):
                    raise TrialError(f"{study.monitor} must be a number in one epoch at least. It was {best} in all.")
                return Completed(message=f"{study.monitor} {best:.4f}", data=best)
        status = process.wait()
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise TrialError(
        f"The process of trial {number} must end with a result. It ended with {how}"
        f"{', as when memory runs out' if status == -9 else ''}; {log_of(number, study)} has its last output."
    )


def _error_of(number: int, answer: dict[str, Any]) -> Exception:
    """What a process failed for: its settings, what heals when it is tried again, or what must be mended."""
    if answer["of_settings"]:
        return TrialError(answer["error"])
    if answer["heals"]:
        return UnreachableError(answer["error"])
    return SweepError(
        f"Trial {number} failed for a reason other than its settings: {answer['error'].rstrip('.')}. Fix it, and "
        "re-run the command to continue."
    )


def _pruned(epoch: int) -> State[float | None]:
    return Completed(name="Pruned", message=f"worse than the median at epoch {epoch}")


run_trial = cast(  # Prefect unwraps a state that a task returns; its types do not say so
    "Task[..., float | None]",
    as_task(_run_trial, name="run_trial", run_name="trial-{number}"),
)
