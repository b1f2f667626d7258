"""From the words of a config to a Keras optimizer with its schedule; the warm-up alone is written here."""

import inspect
from typing import Any

import keras
from keras import ops

from layerflow.errors import ConfigError
from layerflow.settings.fields import settings_in
from layerflow.settings.training import TrainingConfig
from layerflow.training.keras_objects import keras_class


@keras.saving.register_keras_serializable(package="layerflow")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0, and then follows another schedule.

    ``rate(0) * step / steps`` in the first ``steps`` steps, ``rate(step - steps)`` after them.

    Args:
        rate: A number, or the schedule after the warm-up.
        steps: Steps of the warm-up.

    References:
        Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour (2017).
    """

    def __init__(self, rate: Any, steps: int) -> None:
        super().__init__()
        self.rate, self.steps = rate, steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = self._after(0.0) * step / max(self.steps, 1)
        return ops.where(step < self.steps, rising, self._after(ops.maximum(step - self.steps, 0)))

    def _after(self, step: Any) -> Any:
        return self.rate(step) if callable(self.rate) else self.rate

    def get_config(self) -> dict[str, Any]:
        rate = keras.saving.serialize_keras_object(self.rate) if callable(self.rate) else self.rate
        return {"rate": rate, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        return cls(keras.saving.deserialize_keras_object(config["rate"]), config["steps"])


def make_optimizer(config: TrainingConfig, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer that ``training.optimizer``, ``.schedule``, ``.warmup_epochs``, ``.ema`` and others describe.

    A name takes Keras' defaults; a mapping is Keras' own serialised form, ``{"class_name": ..., "config": {...}}``. A
    schedule that asks for ``initial_learning_rate`` or ``decay_steps`` and is not told gets ``learning_rate`` and the
    steps of all epochs after the warm-up.

    Raises:
        ConfigError: With Keras' reason.
    """
    optimizer, settings = keras_class(config.optimizer, keras.optimizers), settings_in(config.optimizer)
    rate: Any = settings.pop("learning_rate", config.learning_rate)
    warmup = round(config.warmup_epochs * steps_an_epoch)
    if config.ema:
        settings |= {"use_ema": True, "ema_momentum": config.ema}
    try:
        if config.schedule is not None:
            schedule, given = keras_class(config.schedule, keras.optimizers.schedules), settings_in(config.schedule)
            defaults = {"initial_learning_rate": rate, "decay_steps": steps_an_epoch * config.epochs - warmup}
            asked = inspect.signature(schedule).parameters
            rate = schedule(**{name: value for name, value in defaults.items() if name in asked} | given)
        made = optimizer(learning_rate=LinearWarmup(rate, warmup) if warmup else rate, **settings)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"training.optimizer or training.schedule is refused by Keras: {reason}") from error
    return keras.optimizers.LossScaleOptimizer(made) if config.precision == "mixed_float16" else made
