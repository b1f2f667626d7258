"""The settings that a user gives in YAML files and as flags."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerflow import yaml_file
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, config_sentence
from layerflow.settings.fields import Group

#: The settings of a project that `layerflow init` made.
PROJECT = Path("layerflow.yaml")


def settings_of(file: Path | None, flags: RetrainConfig) -> RetrainConfig:
    """The settings of a YAML file, with those that were given as flags laid over them.

    Args:
        file: That of ``--config``; default: the ``layerflow.yaml`` of the working folder, if there is one.
    """
    if file is None and not PROJECT.is_file():
        return flags
    content = yaml_file.read("--config" if file else "The settings", file or PROJECT, "training: {epochs: 5}")
    try:
        return RetrainConfig.model_validate(_laid_over(content, flags))
    except ValidationError as error:
        raise ConfigError(config_sentence(error)) from error


def _laid_over(content: dict[str, Any], flags: Group) -> dict[str, Any]:
    """The settings of a file, group by group, with those of the flags in their place."""
    for name, given in flags.model_dump(exclude_unset=True).items():
        group, below = getattr(flags, name), content.get(name) or {}
        if not isinstance(group, Group):
            content[name] = given
        elif isinstance(below, dict):
            content[name] = _laid_over({**below}, group)
    return content


def space_of(file: Path | None, over: list[str]) -> dict[str, Any] | None:
    """The search space of a YAML file and of flags, as they stand; nothing where neither is given."""
    form = "training.learning_rate: {log_uniform: [1e-4, 1e-2]}"
    content = yaml_file.read("--space", file, form) if file else {}
    for line in over:
        content |= yaml_file.parse("--over", line.encode(errors="surrogateescape"), form)
    return content if file or over else None
