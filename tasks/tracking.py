"""Telling the trackers of ``extend.trackers`` how a run goes: after each epoch, and once all is known."""

import logging
import time
from pathlib import Path
from typing import Any

from layerflow import plugins, store
from layerflow.config import RetrainConfig
from layerflow.errors import heals, mask
from layerflow.extensions import Run
from layerflow.outcomes import Retrained
from layerflow.records import DatasetRef, Record
from tasks import remote
from tasks.cards import settings_of_run
from tasks.policy import as_task

log = logging.getLogger("layerflow")
#: Seconds between two calls in training: a short one has many epochs in one.
_SECONDS = 2.0


def epochs_tracked(data: DatasetRef, folder: Path) -> list[Any]:
    """A Keras callback that tells the trackers of the flow run of each epoch, where there are any.

    Args:
        folder: Where the training works, ``.<key>.working``.
    """
    config = settings_of_run()
    if config is None or not config.extend.trackers:
        return []
    import keras

    trackers = config.extend.trackers
    run = _run(config, data, folder.name.removeprefix(".").removesuffix(".working"))

    class EpochsTracked(keras.callbacks.Callback):
        """A tracker that fails is called no more in this training."""

        def on_train_begin(self, logs: Any = None) -> None:
            self.trackers, self.epochs = list(trackers), list[dict[str, float]]()
            self.told = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
            if time.monotonic() - self.told > _SECONDS:
                for name in self.trackers[:]:
                    try:
                        _tell(name, run._replace(epochs=tuple(self.epochs)))
                    except Exception as error:  # whatever it is: nobody trains for the sake of being watched
                        log.warning("%s is not called again in this training: %s", name, error)
                        self.trackers.remove(name)
                self.told = time.monotonic()

    return [EpochsTracked()]


def _track_run(config: RetrainConfig, made: Retrained) -> None:
    """Tell each tracker all that is known of a run."""
    remote.bring([made.export, *(each for each in _with_cards(made).values() if each)])
    promotion, figures = made.promotion, made.own_metrics.values if made.own_metrics else {}
    run = _run(config, made.data, made.trained.folder.rpartition("/")[2])._replace(
        epochs=tuple(epoch.model_dump() for epoch in made.trained.history),
        figures={"test_accuracy": made.evaluation.accuracy, "test_loss": made.evaluation.loss, **figures},
        cards={name: _card(record) for name, record in _with_cards(made).items() if record},
        saved_model=store.path(made.export.saved_model),
        decision={
            "code": promotion.code,
            "reason": promotion.reason,
            "version": promotion.version if promotion.status in ("promoted", "unchanged") else None,
        },
    )
    failed = list[Exception]()
    for name in config.extend.trackers:
        try:
            _tell(name, run)
        except Exception as error:  # the others must be told all the same
            failed.append(error)
    if failed:
        raised = next(filter(heals, failed), failed[0])  # a retry can help, and tells all of them
        for other in failed:
            if other is not raised:  # which the step's state names
                log.warning("A tracker did not record this run: %s", other)
        raise raised


def _with_cards(made: Retrained) -> dict[str, Record | None]:
    return {
        **{"evaluation": made.evaluation, "training": made.trained, "export": made.verification},
        **{"data": made.checked, "checks": made.own_checks, "metrics": made.own_metrics},
    }


#: Retried as any step is. Where it fails, the run goes on.
track_run = as_task(_track_run, name="track_run", run_name="track-{config.registry_name}")


def _run(config: RetrainConfig, data: DatasetRef, training: str) -> Run:
    facts = data.model_dump(mode="json", include={"name", "version", "digest", "counts", "classes"})
    settings = mask(config.model_dump(mode="json", exclude={"registry": {"sign"}}))  # as in receipts
    return Run(training, config.registry_name, settings, facts, (), {}, {}, None, {})


def _tell(name: str, run: Run) -> None:
    tracker = plugins.load("trackers", name)
    with plugins.calling("trackers", name):
        tracker(run)


def _card(record: Record) -> str:
    try:
        return store.path(record.card).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
