"""How far training is: as a bar among the run's artifacts in the UI, or told to whoever started this process."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

log = logging.getLogger("layerflow")

#: Seconds between two updates: a short training has many epochs in one.
_SECONDS = 2.0
#: In a process that trains for another one, a trial's: told the number and the figures of each epoch that ends.
listener: Callable[[int, dict[str, float]], None] | None = None


def of_training(epochs: int) -> list[Any]:
    """The Keras callbacks that say how far a training is."""
    return [_told(listener)] if listener else epochs_as_bar(epochs)


def _told(listener: Callable[[int, dict[str, float]], None]) -> Any:
    import keras

    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: listener(epoch + 1, logs))


def epochs_as_bar(epochs: int) -> list[Any]:
    """A Keras callback that moves the bar when an epoch ends; none where there is no run to show it in.

    A server that does not answer costs the bar, never the training.
    """
    if TaskRunContext.get() is None:
        return []
    import keras

    class EpochsAsBar(keras.callbacks.Callback):
        """Percent of ``epochs``; full when training is over, also by early stopping."""

        def on_train_begin(self, logs: Any = None) -> None:
            self.bar: Any = None
            self.moved = time.monotonic()
            with _at_the_price_of_the_bar():
                self.bar = create_progress_artifact(0.0, description=f"Training, of at most {epochs:,} epochs")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if time.monotonic() - self.moved > _SECONDS:
                self.move(100 * (epoch + 1) / epochs)

        def on_train_end(self, logs: Any = None) -> None:
            self.move(100.0)

        def move(self, percent: float) -> None:
            if self.bar:
                bar, self.bar = self.bar, None  # gone for good if this fails: each try may take minutes
                with _at_the_price_of_the_bar():
                    update_progress_artifact(bar, percent)
                    self.bar = bar
            self.moved = time.monotonic()

    return [EpochsAsBar()]


@contextlib.contextmanager
def _at_the_price_of_the_bar() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a client may raise
        log.warning("the bar of the training could not be shown: %s", error)
