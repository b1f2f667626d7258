"""From the words of a config to a Keras optimizer with its schedule; none is written here."""

import inspect
from typing import Any

import keras

from layerflow.errors import ConfigError
from layerflow.settings.fields import settings_in
from layerflow.settings.training import TrainingConfig
from layerflow.training.keras_objects import keras_class


def make_optimizer(config: TrainingConfig, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer that ``training.optimizer``, ``.schedule``, ``.learning_rate`` and ``.precision`` describe.

    A name takes Keras' defaults; a mapping is Keras' own serialised form, ``{"class_name": ..., "config": {...}}``. A
    schedule that asks for ``initial_learning_rate`` or ``decay_steps`` and is not told gets ``learning_rate`` and the
    steps of all epochs.

    Raises:
        ConfigError: With Keras' reason.
    """
    optimizer, settings = keras_class(config.optimizer, keras.optimizers), settings_in(config.optimizer)
    rate: Any = settings.pop("learning_rate", config.learning_rate)
    try:
        if config.schedule is not None:
            schedule, given = keras_class(config.schedule, keras.optimizers.schedules), settings_in(config.schedule)
            defaults = {"initial_learning_rate": rate, "decay_steps": steps_an_epoch * config.epochs}
            asked = inspect.signature(schedule).parameters
            rate = schedule(**{name: value for name, value in defaults.items() if name in asked} | given)
        made = optimizer(learning_rate=rate, **settings)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"training.optimizer or training.schedule is refused by Keras: {reason}") from error
    return keras.optimizers.LossScaleOptimizer(made) if config.precision == "mixed_float16" else made
