"""Keras callbacks that a training calls. Their state follows from the figures of its epochs, so nothing is saved."""

from collections.abc import Sequence
from typing import Any

import keras

from layerflow.errors import ConfigError
from layerflow.records import Epoch
from layerflow.settings.fields import class_named
from layerflow.settings.training import TrainingConfig, is_maximized
from layerflow.training.keras_objects import keras_object

#: Methods that Keras calls in every step, or around its own validation. The engine has neither.
_NEVER_CALLED = (
    *("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end"),
    *("on_predict_begin", "on_predict_end", "on_predict_batch_begin", "on_predict_batch_end"),
)


class _Model:
    """What a callback sees as its ``model``: the learning rate, and whether to stop.

    Anything else, such as the weights, could not be shown again to a callback of a resumed training.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.stop_training, self.metrics = _Optimizer(optimizer), False, ()

    def __getattr__(self, name: str) -> Any:
        raise _not_shown(f"model.{name}")


class _Optimizer:
    """What a callback sees as the optimizer of its ``model``."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @property
    def learning_rate(self) -> Any:
        return self._optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._optimizer.learning_rate = rate

    def __getattr__(self, name: str) -> Any:
        if name == "optimizers":  # Keras asks whether it is several in one
            raise AttributeError(name)
        raise _not_shown(f"model.optimizer.{name}")


def _not_shown(what: str) -> ConfigError:
    return ConfigError(
        "training.callbacks must work from the figures of an epoch, and change nothing but the learning rate, or stop "
        f"the training. Received: a callback that reads {what}; the best weights are kept without it."
    )


class Callbacks:
    """The callbacks of ``training.callbacks``, called as Keras' ``fit`` calls them.

    A resumed training calls them again for the epochs that are over, with the figures of those epochs. This restores
    what they remember, and the learning rate that they set.

    Args:
        config: Names the callbacks.
        optimizer: Must still have its first learning rate.

    Raises:
        ConfigError: If a callback can't be made, acts within an epoch, or watches a figure that does not exist.
    """

    def __init__(self, config: TrainingConfig, optimizer: Any) -> None:
        made = [
            keras_object(each, "training.callbacks", keras.callbacks, keras.callbacks.Callback)
            for each in config.callbacks
        ]
        for form, callback in zip(config.callbacks, made, strict=True):
            _check(class_named(form), callback, config)
        self._model, self._optimizer = _Model(optimizer), optimizer
        self._first_rate = (
            None if config.schedule or config.warmup_epochs or not made else float(optimizer.learning_rate)
        )
        self._list = keras.callbacks.CallbackList(made, model=self._model, epochs=config.epochs)

    @property
    def has_stopped(self) -> bool:
        """Whether one of them stopped the training."""
        return self._model.stop_training

    def on_train_begin(self, history: Sequence[Epoch]) -> None:
        """Begin, and go through the epochs that are over."""
        if self._first_rate is not None:
            self._optimizer.learning_rate = self._first_rate
        self._list.on_train_begin()
        for epoch in history:
            self.on_epoch_begin(epoch.epoch - 1)
            self.on_epoch_end(epoch.epoch - 1, figures_of(epoch))

    def on_epoch_begin(self, epoch: int) -> None:
        """As in Keras: ``epoch`` counts from 0."""
        self._list.on_epoch_begin(epoch)

    def on_epoch_end(self, epoch: int, figures: dict[str, float]) -> None:
        """As in Keras: ``epoch`` counts from 0."""
        self._list.on_epoch_end(epoch, dict(figures))

    def on_train_end(self) -> None:
        """As in Keras."""
        self._list.on_train_end()


def figures_of(epoch: Epoch) -> dict[str, float]:
    """The figures of an epoch that callbacks get, by name."""
    return epoch.model_dump(exclude={"epoch", "seconds"})


def _check(name: str, callback: Any, config: TrainingConfig) -> None:
    for hook in _NEVER_CALLED:
        if getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook):
            raise ConfigError(
                "training.callbacks must act at the beginning or the end of an epoch, since a step is no call. "
                f"Received: {name}, which has {hook}."
            )
    if not isinstance(monitor := getattr(callback, "monitor", None), str):
        return
    if monitor not in config.figures:
        raise ConfigError(
            f"training.callbacks must watch one of {', '.join(config.figures)}. "
            f"Received: {name} with monitor={monitor!r}"
        )
    if getattr(callback, "mode", None) == "auto":  # Keras looks for it in a compiled model
        callback.mode = "max" if is_maximized(monitor) else "min"
