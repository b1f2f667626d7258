"""Which trial runs when, here or on a Ray cluster, until there are as many as were asked for."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import ValidationError

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import SweepError, TrialError, config_sentence
from layerflow.records import DatasetRef
from layerflow.sweeps.outcomes import StudyRef
from layerflow.sweeps.space import Space, configured
from layerflow.sweeps.study import Study, study_of
from tasks.trials.choose_winner import show_sweep_card
from tasks.trials.process import ROOT, is_stopped, stop_trials
from tasks.trials.run_trial import run_trial

log = logging.getLogger("layerflow")


#: Seconds between two cards of a sweep that is not over: each is kept by Prefect.
_CARD_SECONDS = 30.0


def run_trials(
    config: RetrainConfig, space: Space, data: DatasetRef, trials: int, parallel: int, ray: str | None
) -> StudyRef:
    """Run trials until there are ``trials``, ``parallel`` of them at a time; those that a killed sweep left go first.

    Who else runs the same sweep waits, and finds them done.
    """
    study = study_of(config, space, data)
    is_stopped.clear()
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
                    show_sweep_card(config, space, known, known.best)
                    shown_at = time.monotonic()
                done = next(as_completed(list(running)))
                number, began = running.pop(done)
                if why := _lost(done):
                    log.warning("trial %d is left to the next run of the sweep: its worker was lost (%s)", number, why)
                    known.leave(number, f"its worker was lost: {why}")
                else:
                    known.end(number, time.monotonic() - began, *_result(done))
        except BaseException:
            stop_trials()
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

    from layerflow.training.ray_cluster import reason_of

    error: Any = done.state.data
    if isinstance(error, ray.exceptions.RayTaskError):
        raise SweepError(
            f"Every node must be able to run a trial. One is not: {reason_of(error)}; fix it, and re-run the sweep."
        ) from error
    return reason_of(error)


def _result(done: PrefectFuture[Any]) -> tuple[float | None, str]:
    """The figure of a trial, or none, and the reason for which it failed, if it did.

    What is no fault of its settings (a full disk, a cluster that is too small) ends the sweep; the next run of it takes
    the trial up again.
    """
    try:
        return done.result(), ""
    except TrialError as error:
        return None, " ".join(str(error).split())


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

        path = os.pathsep.join(filter(None, [str(ROOT), os.getcwd(), os.environ.get("PYTHONPATH")]))
        variables = {"LAYERFLOW_STORE": str(store.root()), "PYTHONPATH": path}
        # What the workers print is the trials' log, which their tasks hand to Prefect.
        connect(ray, runtime_env={"env_vars": variables})
        stack.callback(cluster.shutdown)
        folder = store.path(study.folder)
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(store.root(), os.getcwd(), config.model.name, SWEEP_LIBRARIES, config.training.own_code)
        check_nodes(place, folder)
        runner = stack.enter_context(RayTaskRunner())
        gpus = cluster.cluster_resources().get("GPU", 0)
        stack.enter_context(remote_options(num_gpus=min(1, gpus)))  # a task that asks for none sees none
        yield runner.submit
