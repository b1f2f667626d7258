"""The trials of a sweep: what they tried and how they went, kept in the store, where a killed sweep goes on.

Optuna's journal, a file to which lines are added; several processes may do so. What trial ``n`` tries depends on the
space, the seed, ``n`` and the trials that are finished, and on nothing that a process remembers: a sweep that was
killed goes on as if it had not been.
"""

import bisect
import hashlib
import itertools
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from layerflow import store, user_code
from layerflow.code_digest import code_digest
from layerflow.config import RetrainConfig
from layerflow.models.network_code import network_code
from layerflow.records import DatasetRef
from layerflow.settings.training import is_maximized
from layerflow.sweeps.outcomes import StudyRef, Trial
from layerflow.sweeps.space import Space, as_text, comparable

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

#: Trials that are drawn at random before the sampler learns from them, and that must be complete before the first is
#: pruned. Half of the sampler's default, since a sweep here is of tens of trials and not of hundreds.
_STARTUP_TRIALS = 5
#: What Optuna raises at a line that is JSON and makes no sense; it checks none.
_REFUSED = (LookupError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError)
#: Optuna's states, in our words.
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "running"}


def study_of(config: RetrainConfig, space: Space, data: DatasetRef) -> StudyRef:
    """Where the trials of this sweep lie: under the digest of all that decides their figures."""
    modules = ("layerflow.models.build", "layerflow.training.train")
    own = (user_code.package_digest(name, setting) for setting, name in config.training.own_code)
    code = [*map(code_digest, modules), network_code(config.model.name), *own]
    content = [comparable(config), data.digest, space, code]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return StudyRef(
        folder=f"sweeps/{key}",
        monitor=config.training.monitor,
        # As long as a training may go on without getting better, nothing is said against it.
        warm_up=config.training.patience,
    )


class Study:
    """The trials of ``ref``. The first call makes an empty study."""

    def __init__(self, ref: StudyRef) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = store.path(ref.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "journal.log"
        # Not Optuna's own lock, which outlives a killed process by half a minute.
        lock: Any = FileLock(folder / "journal.lock")
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self._file), lock_obj=lock)),
            study_name="sweep",
            direction="maximize" if is_maximized(ref.monitor) else "minimize",
            # Nothing is drawn through this study: see `draw`.
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.MedianPruner(_STARTUP_TRIALS, ref.warm_up),
            load_if_exists=True,
        )

    @staticmethod
    def exists(ref: StudyRef) -> bool:
        """Whether there is one already: who only runs a trial of it must not make another."""
        return (store.path(ref.folder) / "journal.log").exists()

    @staticmethod
    def mend(ref: StudyRef) -> None:
        """Cut the journal off at its first line that can't be read; the caller ensures that nobody else writes.

        A killed process leaves its last line half written. Each line builds on those before, so that what comes after
        a damaged one in the middle is not to be trusted; those trials run again, and draw the same settings.
        """
        file = store.path(ref.folder) / "journal.log"
        if not file.exists():
            return
        content = file.read_bytes()
        lines = content.splitlines(keepends=True)
        good = list(itertools.takewhile(_is_entry, lines))
        if not _replays(good, file.parent):
            first_bad = bisect.bisect(range(len(good)), False, key=lambda at: not _replays(good[: at + 1], file.parent))
            good = good[:first_bad]
        if good == lines:
            return
        if len(lines) - len(good) > 1 or content.endswith(b"\n"):
            aside = file.with_name(f".damaged-{file.name}-{time.time_ns()}")
            aside.write_bytes(content)
            log.warning(
                "%s is damaged: %d of its %d lines can be used; what the others noted is done again, and the whole "
                "file was set aside as %s",
                *(file, len(good), len(lines), aside.name),
            )
        store.write_atomically(file, b"".join(good))

    @property
    def trials(self) -> list[Trial]:
        """All trials, in order."""
        return [_as_record(trial) for trial in self._study.get_trials(deepcopy=False)]

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best figure, the first of equal ones; none where none is complete."""
        if not any(trial.state == "complete" for trial in self.trials):
            return None
        return _as_record(self._study.best_trial)

    def draw(self, space: Space, seed: int) -> Trial:
        """Begin the next trial, with settings of its own."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        number = len(trials)
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), n_startup_trials=_STARTUP_TRIALS, multivariate=True
        )
        scratch = optuna.create_study(sampler=sampler, direction=self._study.direction)
        scratch.add_trials([trial for trial in trials if trial.state.is_finished()])
        distributions = {name: _distribution(spec) for name, spec in space.items()}
        drawn = scratch.ask(distributions)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=drawn.params, distributions=distributions
            )
        )
        return self.trials[number]

    def note_epoch(self, number: int, epoch: int, value: float) -> bool:
        """Note an epoch's figure, and say whether to prune the trial."""
        self._trial(number).report(value, epoch)
        return self.is_worse(number)

    def is_worse(self, number: int) -> bool:
        """Whether a trial was never as good as the median of the complete ones is at the epoch that it has come to."""
        return self._trial(number).should_prune()

    def end(self, number: int, seconds: float, value: float | None = None, reason: str = "") -> None:
        """Note how a trial ended: failed with a reason, complete with the figure of its best epoch, else pruned."""
        import optuna

        trial = self._trial(number)
        trial.set_user_attr("seconds", seconds)
        if reason:
            trial.set_user_attr("reason", reason)
        states = optuna.trial.TrialState
        self._study.tell(number, value, states.FAIL if reason else states.PRUNED if value is None else states.COMPLETE)

    def leave(self, number: int, reason: str) -> None:
        """Note why a trial did not come to its end, and leave it to whoever takes the sweep up again."""
        self._trial(number).set_user_attr("reason", reason)

    def importances(self) -> dict[str, float]:
        """How much of the figures' differences each field explains, by fANOVA; nothing where trials are too few."""
        import optuna

        complete = [trial for trial in self.trials if trial.state == "complete"]
        if len({trial.value for trial in complete}) < _STARTUP_TRIALS:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _trial(self, number: int) -> "optuna.Trial":
        import optuna

        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)


def _is_entry(line: bytes) -> bool:
    """Whether a line of the journal is whole: an object with the number of an operation and who asked for it."""
    try:
        entry = json.loads(line)
        return line.endswith(b"\n") and isinstance(entry["op_code"], int) and isinstance(entry["worker_id"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _replays(lines: list[bytes], folder: Path) -> bool:
    """Whether Optuna takes these lines of a journal."""
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    with tempfile.NamedTemporaryFile(dir=folder, prefix=".replay-") as copy:
        copy.write(b"".join(lines))
        copy.flush()
        lock: Any = FileLock(f"{copy.name}.lock")
        try:
            JournalStorage(JournalFileBackend(copy.name, lock_obj=lock))
        except _REFUSED:
            return False
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
    return True


def _distribution(spec: dict[str, list[Any]]) -> Any:
    from optuna import distributions

    ((kind, values),) = spec.items()
    if kind == "choice":
        return distributions.CategoricalDistribution([as_text(value) for value in values])
    if kind == "int":
        return distributions.IntDistribution(*values)
    low, high = values
    return distributions.FloatDistribution(low, high, log=kind == "log_uniform")


def _as_record(trial: Any) -> Trial:
    return Trial(
        number=trial.number,
        state=_STATES[trial.state.name],
        value=trial.value if trial.state.name in ("COMPLETE", "PRUNED") else None,
        settings={name: json.loads(value) if isinstance(value, str) else value for name, value in trial.params.items()},
        curve=tuple(trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)),
        seconds=trial.user_attrs.get("seconds", 0.0),
        # Not why a trial was left that came to its end later.
        reason=trial.user_attrs.get("reason", "") if trial.state.name in ("FAIL", "RUNNING") else "",
    )
