"""From the words of a config to a Keras optimizer with its schedule; none is written here."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from layerflow.errors import ConfigError
from layerflow.settings.training import TrainingConfig


def make_optimizer(config: TrainingConfig, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer that ``training.optimizer``, ``.schedule``, ``.learning_rate`` and ``.precision`` describe.

    A name takes Keras' defaults; a mapping is Keras' own serialised form, ``{"class_name": ..., "config": {...}}``. A
    schedule that asks for ``initial_learning_rate`` or ``decay_steps`` and is not told gets ``learning_rate`` and the
    steps of all epochs.

    Raises:
        ConfigError: With Keras' reason.
    """
    optimizer, settings = _describe(config.optimizer, keras.optimizers)
    rate: Any = config.learning_rate
    try:
        if config.schedule is not None:
            schedule, given = _describe(config.schedule, keras.optimizers.schedules)
            defaults = {"initial_learning_rate": rate, "decay_steps": steps_an_epoch * config.epochs}
            asked = inspect.signature(schedule).parameters
            rate = schedule(**{name: value for name, value in defaults.items() if name in asked} | given)
        made = optimizer(**{"learning_rate": rate, **settings})
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"training.optimizer or training.schedule is refused by Keras: {reason}") from error
    return keras.optimizers.LossScaleOptimizer(made) if config.precision == "mixed_float16" else made


def _describe(value: str | dict[str, Any], module: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The Keras class that a name or Keras' serialised form means, and its settings."""
    form: dict[str, Any] = {"class_name": value} if isinstance(value, str) else value
    classes = {name.lower(): member for name, member in vars(module).items() if inspect.isclass(member)}
    return classes[form["class_name"].lower()], dict(form.get("config") or {})
