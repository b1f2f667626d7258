"""How far training is: bars in the UI and on a terminal, or told to whoever started this process."""

import contextlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import task_run
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.logs import console

log = logging.getLogger("layerflow")

#: Seconds between two updates in the UI: a short training has many epochs in one.
_SECONDS = 2.0
#: Told the number and the figures of each epoch that ends.
OnEpoch = Callable[[int, dict[str, float]], None]


@contextlib.contextmanager
def epochs_shown(epochs: int, on_epoch: OnEpoch | None = None) -> Iterator[list[Any]]:
    """Keras callbacks that show each epoch: to ``on_epoch``; to the UI in a task run, and on a terminal."""
    with contextlib.ExitStack() as bars:
        callbacks = [_told(on_epoch)] if on_epoch else []
        if TaskRunContext.get():
            callbacks.append(_epochs_as_artifact(epochs))
        if console.bars and sys.stderr.isatty():
            callbacks.append(_epochs_on_terminal(epochs, bars))
        yield callbacks


def _told(on_epoch: OnEpoch) -> Any:
    import keras

    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, logs))


def _epochs_on_terminal(epochs: int, bars: contextlib.ExitStack) -> Any:
    """Moves a bar that stands below the lines of the log, and is gone when ``bars`` is closed."""
    import keras

    columns = TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
    bar = bars.enter_context(Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True))
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):  # it holds the stream that the bar has put itself before
            bars.callback(setattr, handler.console, "file", handler.console.file)
            handler.console.file = SimpleNamespace(write=sys.stderr.write, flush=sys.stderr.flush)  # type: ignore[assignment]
    shown = bar.add_task("", total=epochs)

    class EpochsOnTerminal(keras.callbacks.Callback):
        """Figures of the last epoch beside the bar."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
            bar.update(shown, completed=epoch + 1, description=figures)

    return EpochsOnTerminal()


def _epochs_as_artifact(epochs: int) -> Any:
    """Moves the bar in the UI. A server that does not answer costs the bar, never the training."""
    import keras

    class EpochsAsArtifact(keras.callbacks.Callback):
        """Percent of ``epochs``; full when training is over, also by early stopping."""

        def on_train_begin(self, logs: Any = None) -> None:
            self.bar: Any = None
            self.moved = time.monotonic()
            with _at_the_price_of_the_bar():
                key = re.sub("[^a-z0-9]+", "-", f"progress-of-{task_run.name}".lower()).strip("-")
                said = f"Progress of the training, in percent of at most {epochs:,} epochs"
                self.bar = create_progress_artifact(0.0, key, said)

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

    return EpochsAsArtifact()


@contextlib.contextmanager
def _at_the_price_of_the_bar() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a client may raise
        log.warning("the bar of the training could not be shown: %s", error)
