"""The settings that a user gives in YAML files and as flags."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli import yaml_file
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, config_sentence


def over_file(file: Path, flags: RetrainConfig) -> RetrainConfig:
    """The settings of a YAML file, with those that were given as flags laid over them."""
    content = yaml_file.read("--config", file, "training: {epochs: 5}")
    for group, given in flags.model_dump(exclude_unset=True).items():
        below = content.get(group) or {}
        content[group] = {**below, **given} if isinstance(below, dict) else below
    try:
        return RetrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(config_sentence(error)) from error


def space_of(file: Path | None, over: list[str]) -> dict[str, Any] | None:
    """The search space of a YAML file and of flags, as they stand; nothing where neither is given."""
    form = "training.learning_rate: {log_uniform: [1e-4, 1e-2]}"
    content = yaml_file.read("--space", file, form) if file else {}
    for line in over:
        content |= yaml_file.parse("--over", line.encode(errors="surrogateescape"), form)
    return content if file or over else None
