"""The process of one trial: it trains as the flow `retrain` would, into the same places of the store, without Prefect.

Started by ``tasks/trials/run_trial.py``. A trial has a process of its own because a GPU's memory is free again only
when a process ends, and because a network that takes all memory must end one trial and not the sweep. Its request is a
line of JSON on stdin; it answers in such lines on stdout. When stdin is closed, the sweep is gone or wants no more: it
saves its checkpoint and ends.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, LayerflowError, NonFiniteLossError, OutOfMemoryError, heals
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.devices import DevicesConfig
from tasks import build_model, train_model
from tasks.caching import make
from tasks.first_weights import first_weights

#: Seconds in which an interrupted training has saved its checkpoint, or never will.
_SAVE_SECONDS = 10.0


class _Answers(logging.Handler):
    """Lines of JSON on what was stdout; whatever a library prints goes to stderr instead."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._one_at_a_time = threading.Lock()

    def say(self, **content: Any) -> None:
        line = json.dumps(content) + "\n"
        with self._one_at_a_time:
            self._stream.write(line)
            self._stream.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.say(level=record.levelno, log=record.getMessage())


def main() -> None:
    """Train as the request says, and answer with each epoch, with what is logged, and with what came of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may have inherited none
    answers = _Answers()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ours = logging.getLogger("layerflow")
    ours.handlers, ours.propagate = [answers], False
    ours.setLevel(logging.INFO)
    config = RetrainConfig.model_validate(request["config"])
    data = DatasetRef.model_validate(request["data"])
    devices = config.devices_for_model
    try:
        model = make(build_model, config.model, data, config.training.seed, devices, first_weights(config, data))
        for epoch in _epochs_before(config, model, data, devices):
            answers.say(epoch=epoch.pop("epoch"), figures=epoch)
        inputs = config.training, config.augment, config.finetune, model, data, devices
        trained = make(train_model, *inputs, on_epoch=lambda epoch, figures: answers.say(epoch=epoch, figures=figures))
    except Exception as error:  # whatever a network of the user's may raise
        first = next(iter(str(error).strip().splitlines()), "")  # TensorFlow's go on with all of its stack
        sentence = str(error) if isinstance(error, LayerflowError) else f"{type(error).__name__}: {first}"
        with contextlib.suppress(OSError):  # a full disk: the answer below must be heard all the same
            traceback.print_exc()  # into the trial's log
        answers.say(error=" ".join(sentence.split()), of_settings=is_of_settings(error), heals=heals(error))
    else:
        answers.say(trained=trained.model_dump(mode="json"))


def _epochs_before(
    config: RetrainConfig, model: ModelRef, data: DatasetRef, devices: DevicesConfig
) -> Iterator[dict[str, Any]]:
    """The epochs after which training resumes: whether they were bad is not to wait until it has come to its end."""
    from layerflow.training.checkpoint import checkpoint_of
    from layerflow.training.fingerprint import fingerprint_of

    fingerprint = fingerprint_of(config.training, model, data, devices, config.augment, config.finetune)
    found = checkpoint_of(fingerprint, config.training.epochs).found
    for epoch in found[1]["history"] if found else ():
        yield {name: value for name, value in epoch.items() if name != "seconds"}


def is_of_settings(error: Exception) -> bool:
    """Whether other settings may do better: of our errors these, and whatever a network of the user's may raise."""
    if isinstance(error, LayerflowError):
        return isinstance(error, ConfigError | NonFiniteLossError | OutOfMemoryError)
    return not isinstance(error, OSError) and not heals(error)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(_SAVE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
