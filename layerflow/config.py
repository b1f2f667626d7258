"""What a retraining is asked to do: one frozen tree of settings.

It is the form that the Prefect UI renders, the flags that the command line takes and the YAML that
``--config`` reads; every field has a default, bounds and a description. Imports neither TensorFlow nor Prefect.
"""

import json
import math
import re
import shlex
from collections.abc import Iterator
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from layerflow.errors import mask, printed
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.checks import ChecksConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.export import ExportConfig
from layerflow.settings.extend import ExtendConfig
from layerflow.settings.fields import Group
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.gate import MOST_PUBLISHED, PUBLISHED, GateConfig, RegistryConfig, SignConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig


class RetrainConfig(Group):
    """Everything a retraining run is asked to do.

    Every field is optional and keeps its default where it is left as it is. Most runs set `data.name`, `model.name`
    and `training.epochs`.
    """

    model_config = ConfigDict(title="Settings")

    # In this order the form shows them: what most runs set comes first.
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augment: AugmentConfig = AugmentConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    checks: ChecksConfig = ChecksConfig()
    extend: ExtendConfig = ExtendConfig()
    devices: DevicesConfig = DevicesConfig()

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        """JSON, in which the server and records keep settings, has no infinity."""
        for field, value in _values(self.model_dump(), ""):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"a finite number for {field}, not {value}")
        return self

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        name = self.registry_name
        if len(name) > MOST_PUBLISHED or not re.match(PUBLISHED, name):
            raise ValueError(
                f"a published name of at most {MOST_PUBLISHED} letters, digits, `.`, `_` and `-`; the default, "
                f"from model and data, is {printed(name)} with {len(name)}; set registry.name"
            )
        return self

    @model_validator(mode="after")
    def _tunes_given_weights(self) -> Self:
        if self.model.weights == "none" and self.finetune != FinetuneConfig():
            raise ValueError(
                "finetune together with model.weights, which a network starts from; set model.weights, to imagenet "
                "say, or leave finetune out"
            )
        return self

    @model_validator(mode="after")
    def _has_slices_to_judge(self) -> Self:
        if self.gate.min_slice and not self.data.slices:
            raise ValueError("gate.min_slice together with data.slices; set data.slices, or leave gate.min_slice out")
        return self

    @property
    def devices_for_model(self) -> DevicesConfig:
        """The devices with the threads in force.

        One for a network without convolutions in batches below 64: its products are so small that they lose more by
        being divided than they gain (measured on two cores: 8 % at 32; from 64 on, two threads win, 15 % at 128).
        """
        small = self.model.name == "mlp" and self.training.batch_size < 64
        return self.devices.model_copy(update={"threads": self.devices.threads or (1 if small else None)})

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that the SavedModel is converted to: layerflow's and your own."""
        return (*self.export.converted, *sorted(self.extend.exporters))

    @property
    def as_flags(self) -> str:
        """The settings that are not the defaults, as the command line takes them; secrets in addresses are ``***``.

        Without ``registry.sign``: no report says where a key is kept.
        """
        registry = self.registry.model_copy(update={"sign": SignConfig()})
        return " ".join(_flags(self.model_copy(update={"registry": registry}), "--"))

    @property
    def registry_name(self) -> str:
        """Name under which the model is published: ``registry.name``, or model and dataset."""
        return self.registry.name or f"{self.model.name.rpartition(':')[2]}-{self.data.title}"


def _values(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each value in dicts and lists, with its path, such as ``training.epochs``."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _values(value, f"{path}.{name}".removeprefix("."))
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _values(value, path)
    else:
        yield path, content


def _flags(group: Group, prefix: str) -> Iterator[str]:
    for field, value in group.model_dump(mode="json", exclude_defaults=True).items():
        below = getattr(group, field)
        if isinstance(below, Group):
            yield from _flags(below, f"{prefix}{field}.")
        else:
            text = shlex.quote(mask(value if isinstance(value, str) else json.dumps(value)))
            yield f"{prefix}{field}{'=' if isinstance(value, bool) else ' '}{text}"
