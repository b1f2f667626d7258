"""From the words of a config to objects of Keras, or of your own code."""

import inspect
from collections.abc import Callable
from typing import Any

from layerflow import user_code
from layerflow.errors import ConfigError
from layerflow.settings.fields import class_named, settings_in


def keras_class(form: str | dict[str, Any], module: Any) -> Any:
    """The class in ``module``, a part of Keras, that a name in any case or a Keras form means."""
    classes = {name.lower(): member for name, member in vars(module).items() if inspect.isclass(member)}
    return classes[class_named(form).lower()]


def keras_object(
    form: str | dict[str, Any],
    setting: str,
    module: Any,
    base: Any,
    wrap: Callable[[Any], Any] | None = None,
    forced: dict[str, Any] | None = None,
) -> Any:
    """The object that a name or a Keras form means: of a class in ``module``, or of your own code.

    Args:
        form: Such as ``AUC``, ``{"class_name": "AUC", "config": {"num_thresholds": 50}}`` or ``mynets.scores:Mine``.
        setting: Where it was given, for the errors.
        module: The part of Keras that has the classes, such as ``keras.metrics``.
        base: What your own class must derive from.
        wrap: Makes an object of your own function; without it, functions are refused.
        forced: Arguments that a class gets if it takes them, whatever the form says.

    Raises:
        ConfigError: If it can't be imported, is of another kind, or refuses its arguments.
    """
    name, settings = class_named(form), settings_in(form)
    if user_code.is_own(name):
        maker = user_code.maker_of(name, setting, base)
        if not inspect.isclass(maker):
            if wrap is None or settings:
                why = "a `config` is for classes" if settings else "only a class will do"
                raise ConfigError(f"{setting} must name a class there: {why}. Received: {name}, a function")
            return wrap(maker)
    else:
        maker = keras_class(form, module)
    taken = inspect.signature(maker).parameters
    settings |= {name: value for name, value in (forced or {}).items() if name in taken}
    return call_keras(setting, maker, settings)


def call_keras(setting: str, maker: Any, settings: dict[str, Any]) -> Any:
    """What ``maker`` makes of ``settings``.

    Raises:
        ConfigError: With the reason that Keras, or your own class, gives.
    """
    try:
        return maker(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{setting} is refused by {maker.__name__}: {' '.join(str(error).split())}") from error
