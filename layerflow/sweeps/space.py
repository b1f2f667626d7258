"""What a sweep tries: a space over the settings of a run, checked against them before the first trial.

A space names fields of ``RetrainConfig``, and for each what it may be:

    training.learning_rate: {log_uniform: [1e-4, 1e-2]}
    training.batch_size: {choice: [32, 64, 128]}
    model.dropout: {uniform: [0, 0.5]}
    model.depth: {int: [1, 4]}

Imports neither TensorFlow nor Prefect nor Optuna.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from layerflow import user_code
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, config_sentence, did_you_mean, printed, shown
from layerflow.extras import libraries_of, require_ray, require_ray_for_trials

#: Field by field, a kind and its list: both bounds, or all choices.
Space = dict[str, dict[str, list[Any]]]

_KINDS = ("choice", "uniform", "log_uniform", "int")
#: Fields of these groups only: what the others decide is not how good a network becomes on the same data.
_GROUPS = ("model", "training", "augment", "finetune")
#: Those of their fields that are the same for all trials, each with its reason.
_FIXED = {
    "model.name": "a sweep is of one network; sweep each, and the gate compares them",
    "training.monitor": "it is what trials are compared by",
    "training.seed": "a lucky seed is not a better setting",
    "training.workers": "it is how the work is shared",
    "training.checkpoint_seconds": "it changes no figure",
    "training.memory_budget": "it changes no figure",
}
#: How an option of a custom network begins.
_OPTION = "model.options."
_LEARNING: Space = {
    "training.learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "training.batch_size": {"choice": [32, 64, 128]},
}
#: What is tried where nothing is said, around each network's defaults.
_DEFAULTS: dict[str, Space] = {
    "mlp": {"model.hidden": {"choice": [[32], [64], [128], [128, 64]]}, "model.dropout": {"uniform": [0.0, 0.5]}},
    "cnn": {"model.width": {"choice": [16, 32, 64]}, "model.dropout": {"uniform": [0.0, 0.6]}},
    "resnet": {"model.width": {"choice": [8, 16, 32]}, "model.depth": {"int": [1, 3]}},
    "vit": {
        "model.width": {"choice": [32, 64, 128]},
        "model.depth": {"int": [2, 6]},
        "model.dropout": {"uniform": [0.0, 0.3]},
    },
}
#: Combinations of bounds and choices that are tried out on the config, which takes a tenth of a second.
_MOST_COMBINATIONS = 1024
#: Where between its bounds a range is looked at too, so that a field that takes whole numbers only is found out.
_INSIDE = 0.6180339887
#: Whole numbers of an `int` range up to which each is tried out: not all of them may be settings (a width must be a
#: multiple of the heads). What a longer range draws and the config refuses is a failed trial.
_MOST_WHOLE = 64


def plan(config: RetrainConfig, given: Any = None, ray: str | None = None) -> Space:
    """The space that is ``given``, or the network's default one without the fields that ``config`` sets; checked.

    Args:
        ray: The cluster that is to run the trials, if one is.

    Raises:
        ConfigError: If a field is unknown or must not differ between trials, the config refuses a bound or a
            choice, no validation figure has the name that trials are compared by, or an extra is not installed.
    """
    require_ray(config.training)
    libraries_of(config.export.converted)
    if ray is not None:
        require_ray_for_trials()
        if config.training.workers > 1:
            raise ConfigError(
                "training.workers must be 1 where the trials run on a Ray cluster: each would wait for processors that "
                f"the others hold. Received: {config.training.workers}"
            )
    if not config.training.monitor.startswith("val_"):
        raise ConfigError(
            "training.monitor must be a validation figure, such as val_loss, in a sweep: trials are compared by "
            f"what they did not learn from. Received: {config.training.monitor}"
        )
    space = _default(config) if given is None else _parsed(config, given)
    if not space:
        raise ConfigError("A search space must name a field at least, such as training.learning_rate. It names none.")
    if "training.loss" in space and config.training.monitor == "val_loss":
        raise ConfigError(
            "training.monitor must not be val_loss where the space has training.loss: the values of two losses can't "
            "be compared. Set --training.monitor val_accuracy."
        )
    _try_out(config, space)
    return dict(sorted(space.items()))  # what is drawn depends on the order


def configured(config: RetrainConfig, settings: Mapping[str, Any]) -> RetrainConfig:
    """``config`` with these settings, such as ``{"training.batch_size": 64}``, laid over it.

    Raises:
        ValidationError: If they are not settings of a run.
    """
    content = config.model_dump(exclude_none=True)
    for name, value in settings.items():
        *groups, field = name.split(".", maxsplit=2)  # an option of your own network is one group deeper
        target = content
        for group in groups:
            target = target.setdefault(group, {})
        target[field] = value
    return RetrainConfig.model_validate(content)


def comparable(config: RetrainConfig) -> dict[str, Any]:
    """The part of ``config`` that decides the figures of a trial, beside the data."""
    same = {"model": True, "training": True, "augment": True, "finetune": True}
    content = config.model_dump(mode="json", include=same)
    for name in ("checkpoint_seconds", "memory_budget"):
        del content["training"][name]
    return content


def as_text(value: Any) -> str:
    """A choice as Optuna keeps it: it knows numbers and text, and no lists."""
    return json.dumps(value, default=str)


def _default(config: RetrainConfig) -> Space:
    given = {
        f"{group}.{field}" for group, fields in config.model_dump(exclude_defaults=True).items() for field in fields
    }
    space = {**_LEARNING, **_DEFAULTS.get(config.model.name, {})}
    return {name: spec for name, spec in space.items() if name not in given}


def _parsed(config: RetrainConfig, content: Any) -> Space:
    if not isinstance(content, dict):
        raise ConfigError(
            "A search space must be a mapping such as `training.learning_rate: {log_uniform: [1e-4, 1e-2]}`. "
            f"Received: {shown(content)}"
        )
    space = {_known(config, str(name)): _parsed_field(str(name), spec) for name, spec in content.items()}
    if "model.options" in space and (part := next(filter(_is_option, space), None)):
        raise ConfigError(f"A space must search model.options as a whole or by its parts. It does both, with {part}.")
    return space


def _is_option(name: str) -> bool:
    return name.startswith(_OPTION) and name != _OPTION


def _known(config: RetrainConfig, name: str) -> str:
    if _is_option(name) and user_code.is_own(config.model.name):
        return name  # whether the network takes it, and this value of it, is seen when it is made
    known = [
        f"{group}.{field}"
        for group, info in RetrainConfig.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
        for field in info.annotation.model_fields
    ]
    if name not in known:
        raise ConfigError(
            f"{printed(name)} must be a setting of a run. No such setting exists{did_you_mean(name, known)}."
        )
    if name in _FIXED:
        raise ConfigError(f"{name} must be the same in all trials: {_FIXED[name]}. Take it out of the search space.")
    if name.partition(".")[0] not in _GROUPS:
        raise ConfigError(
            f"{name} must be the same in all trials, or they can't be compared. Search over fields of "
            f"{', '.join(_GROUPS[:-1])} and {_GROUPS[-1]}."
        )
    return name


def _parsed_field(name: str, spec: Any) -> dict[str, list[Any]]:
    name = printed(name)
    if not isinstance(spec, dict) or len(spec) != 1 or (kind := next(iter(spec))) not in _KINDS:
        raise ConfigError(
            f"{name} must be one of {', '.join(_KINDS)}, such as {{choice: [1, 2]}}. Received: {shown(spec)}"
        )
    values = spec[kind]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{name}: {kind} must have a list of values. Received: {shown(values)}")
    if kind == "choice":
        return {kind: values}
    try:
        # As text: YAML takes 1e-4, without a point, for a word.
        low, high = (float(str(value)) for value in values)
    except ValueError as error:
        raise ConfigError(f"{name}: {kind} must have two numbers, the bounds. Received: {shown(values)}") from error
    if not (low < high and high - low < float("inf")):
        raise ConfigError(
            f"{name}: {kind} must have a lower bound and a higher one, both finite. Received: {shown(values)}"
        )
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(f"{name}: log_uniform must have bounds above 0. Received: {shown(values)}")
    if kind == "int":
        if not (low.is_integer() and high.is_integer()):
            raise ConfigError(f"{name}: int must have whole numbers as bounds. Received: {shown(values)}")
        return {kind: [int(low), int(high)]}
    return {kind: [low, high]}


def _try_out(config: RetrainConfig, space: Space) -> None:
    """Make the configs of the bounds, of the choices and of few whole numbers, and of what they are together."""
    for settings in _combinations(space):
        try:
            configured(config, settings)
        except ValidationError as error:
            for item in error.errors():
                name = ".".join(map(str, item["loc"]))
                if item["type"] == "int_from_float" and name in space:
                    raise ConfigError(
                        f"{name} takes whole numbers; search it by int or choice. Received: {shown(space[name])}"
                    ) from error
            raise ConfigError(f"The search space must hold settings of a run. {config_sentence(error)}") from error


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    """All samples with each other, where those are few; and all that is looked at, with the first of the others."""
    samples = [_samples(spec) for spec in space.values()]
    if math.prod(map(len, samples)) <= _MOST_COMBINATIONS:
        yield from (dict(zip(space, values, strict=True)) for values in itertools.product(*samples))
    first = {name: values[0] for name, values in zip(space, samples, strict=True)}
    for name, values in zip(space, samples, strict=True):
        yield from (first | {name: value} for value in [*values, *_between(space[name])])


def _samples(spec: dict[str, list[Any]]) -> list[Any]:
    ((kind, values),) = spec.items()
    if kind not in ("uniform", "log_uniform"):
        return values
    low, high = values
    return [low, high, low + (high - low) * _INSIDE]


def _between(spec: dict[str, list[Any]]) -> Iterable[int]:
    """The whole numbers between the bounds of an `int` range that has few."""
    ((kind, values),) = spec.items()
    return range(values[0] + 1, values[1]) if kind == "int" and values[1] - values[0] < _MOST_WHOLE else ()
