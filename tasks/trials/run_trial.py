"""A trial of a sweep: one training, in a process of its own, given up where others are better."""

import contextlib
import json
import logging
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from prefect import Task
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import ValidationError

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import SweepError, TrialError, UnreachableError, config_sentence
from layerflow.outcomes import StudyRef
from layerflow.records import DatasetRef, Epoch, TrainedRef
from layerflow.sweeps.space import Space, configured
from layerflow.sweeps.study import Study, study_of
from tasks.cards import show_card
from tasks.policy import as_task
from tasks.trials.choose_winner import show

_ROOT = Path(__file__).resolve().parents[2]
#: Seconds between two cards of a sweep that is not over: each is kept by Prefect.
_CARD_SECONDS = 30.0
#: The processes of the trials that run now.
_processes: set[subprocess.Popen[str]] = set()
#: Set when the sweep ends before its time. A trial that is about to start then, or waits to be retried, does not.
_stopped = threading.Event()
#: Held while a process starts and while all are stopped: none may come in between.
_starting = threading.Lock()
log = logging.getLogger("layerflow")


def _run_trial(number: int, config: RetrainConfig, data: DatasetRef, study: StudyRef) -> State[float | None]:
    """Train with the settings of a trial; give its best figure, or none where it was given up.

    Raises:
        SweepError: If the sweep is not in the store that this machine sees.
    """
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
        return trials.report(number, epoch.epoch, getattr(epoch, study.monitor))

    with _process(number, config, data, study) as process:
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
        f"{', as when memory runs out' if status == -9 else ''}; {_log_of(number, study)} holds its last words."
    )


def _error_of(number: int, answer: dict[str, Any]) -> Exception:
    """What a process failed for: its settings, what heals when it is tried again, or what must be mended."""
    if answer["of_settings"]:
        return TrialError(answer["error"])
    if answer["heals"]:
        return UnreachableError(answer["error"])
    return SweepError(
        f"Trial {number} met what is no fault of its settings: {answer['error'].rstrip('.')}. Mend it, and the same "
        "command goes on."
    )


def _pruned(epoch: int) -> State[float | None]:
    return Completed(name="Pruned", message=f"worse than the median at epoch {epoch}")


def _log_of(number: int, study: StudyRef) -> Path:
    return store.path(study.folder) / f"trial-{number}.log"


@contextlib.contextmanager
def _process(number: int, config: RetrainConfig, data: DatasetRef, study: StudyRef) -> Iterator[subprocess.Popen[str]]:
    """The trial's process, which is gone afterwards.

    Raises:
        SweepError: If the sweep was stopped meanwhile.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with _starting:
        if _stopped.is_set():
            raise SweepError(f"The sweep must go on for trial {number} to start. It was stopped; run it again.")
        with _log_of(number, study).open("w") as errors:
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


run_trial = cast(  # Prefect unwraps a state that a task returns; its types do not say so
    "Task[..., float | None]",
    as_task(_run_trial, name="run_trial", run_name="trial-{number}"),
)


def run_trials(
    config: RetrainConfig, space: Space, data: DatasetRef, trials: int, parallel: int, ray: str | None
) -> StudyRef:
    """Run trials until there are ``trials``, ``parallel`` of them at a time; those that a killed sweep left go first.

    Who else runs the same sweep waits, and finds them done.
    """
    study = study_of(config, space, data)
    _stopped.clear()
    with store.locked(study.folder.replace("/", "-")), _runner(config, study, parallel, ray) as submit:
        Study.mend(study)
        known = Study(study)
        left = [trial for trial in known.trials if trial.state == "running"]
        running: dict[PrefectFuture[Any], tuple[int, float]] = {}
        shown_at = -math.inf
        try:
            while True:
                while len(running) < parallel and (left or len(known.trials) < trials):
                    trial = left.pop(0) if left else known.draw(space, config.training.seed)
                    try:
                        settings = configured(config, trial.settings)
                    except ValidationError as error:
                        known.end(trial.number, 0.0, reason=config_sentence(error))
                        continue
                    inputs = {"config": settings, "data": data, "study": study}
                    running[submit(run_trial, {"number": trial.number, **inputs})] = trial.number, time.monotonic()
                if not running:
                    break
                if time.monotonic() - shown_at > _CARD_SECONDS and known.best:  # while others run: it takes a while
                    show(config, space, known, known.best)
                    shown_at = time.monotonic()
                done = next(as_completed(list(running)))
                number, began = running.pop(done)
                if why := _lost(done):
                    log.warning("trial %d is left to the next run of the sweep: its worker was lost (%s)", number, why)
                    known.leave(number, f"its worker was lost: {why}")
                else:
                    known.end(number, time.monotonic() - began, *_result(done))
        except BaseException:
            _stop_trials()
            raise
    return study


def _lost(done: PrefectFuture[Any]) -> str:
    """What became of the trial's worker, or of its node, if the cluster has lost it and has tried others in vain.

    Raises:
        SweepError: If a node can't run trials at all.
    """
    done.wait()
    if not done.state.is_crashed():
        return ""
    import ray

    from layerflow.training.ray_cluster import said

    error: Any = done.state.data
    if isinstance(error, ray.exceptions.RayTaskError):
        raise SweepError(
            f"Every node must be able to run a trial. One is not: {said(error)}; mend it, and run the sweep again."
        ) from error
    return said(error)


def _result(done: PrefectFuture[Any]) -> tuple[float | None, str]:
    """The figure of a trial, or none, and the reason for which it failed, if it did.

    What is no fault of its settings (a full disk, a cluster that is too small) ends the sweep; the next run of it takes
    the trial up again.
    """
    try:
        return done.result(), ""
    except TrialError as error:
        return None, " ".join(str(error).split())


def _stop_trials() -> None:
    """Let the trials of this process save their checkpoints and end, and no other one start."""
    with _starting:
        _stopped.set()
        for process in list(_processes):
            with contextlib.suppress(OSError):
                assert process.stdin
                process.stdin.close()


@contextlib.contextmanager
def _runner(
    config: RetrainConfig, study: StudyRef, parallel: int, ray: str | None
) -> "Iterator[Callable[..., PrefectFuture[Any]]]":
    """What starts a trial's task: in a thread, which waits for the trial's process; or on a Ray cluster.

    Raises:
        UnreachableError: If the cluster does not answer.
        ClusterError: If one of its nodes can't take part.
    """
    with contextlib.ExitStack() as stack:
        if ray is None:
            threads: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=parallel)
            yield stack.enter_context(threads).submit
            return
        import ray as cluster
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options

        from layerflow.training.ray_cluster import SWEEP_LIBRARIES, Place, check_nodes, connect

        path = os.pathsep.join(filter(None, [str(_ROOT), os.getcwd(), os.environ.get("PYTHONPATH")]))
        variables = {"LAYERFLOW_STORE": str(store.root()), "PYTHONPATH": path}
        # What the workers print is the trials' log, which their tasks hand to Prefect.
        connect(ray, runtime_env={"env_vars": variables})
        stack.callback(cluster.shutdown)
        folder = store.path(study.folder)
        folder.mkdir(parents=True, exist_ok=True)
        check_nodes(Place(store.root(), os.getcwd(), config.model.name, SWEEP_LIBRARIES), folder)
        runner = stack.enter_context(RayTaskRunner())
        gpus = cluster.cluster_resources().get("GPU", 0)
        stack.enter_context(remote_options(num_gpus=min(1, gpus)))  # a task that asks for none sees none
        yield runner.submit
