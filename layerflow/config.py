"""What a retraining is asked to do: one frozen tree of settings.

It is the form that the Prefect UI renders, the flags that the command line takes and the YAML that
``--config`` reads; every field has a default, bounds and a description. Imports neither TensorFlow nor Prefect.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

from layerflow.errors import did_you_mean

MODELS = ("mlp",)


def _known_model(name: str) -> str:
    if name not in MODELS:
        raise ValueError(f"a model named one of {', '.join(MODELS)}{did_you_mean(name, MODELS)}")
    return name


def _one_list(value: Any) -> Any:
    """Take ``[[128, 64]]`` as ``[128, 64]``: the command line hands over ``--model.hidden '[128, 64]'`` so."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Group):
    """Which images, and how they are divided."""

    name: str = Field(
        "digits",
        # Letters, digits and underscores, as TFDS names are: no path can hide in a name.
        pattern=r"^[A-Za-z]\w*(/[A-Za-z0-9][\w.+-]*)?(:\d+\.\d+\.\d+)?$",
        description="`digits` (built in), or any TensorFlow Datasets name of labelled images: `mnist`, `mnist:3.0.1`.",
    )
    mirror: Path | None = Field(
        None,
        description="Folder of raw files, one sub-folder a dataset, used instead of the network. "
        "Default: the environment variable LAYERFLOW_MIRROR.",
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the training split held back for validation; the bytes of an image decide, "
        "so that an image stays on its side when others are added.",
    )

    @property
    def mirror_folder(self) -> Path | None:
        """The mirror in force: this field, or the environment's."""
        default = os.environ.get("LAYERFLOW_MIRROR")
        return self.mirror or (Path(default) if default else None)


class ModelConfig(_Group):
    """Which network, and its own fields."""

    name: Annotated[str, AfterValidator(_known_model)] = Field("mlp", description="The network: `mlp`.")
    hidden: Annotated[tuple[PositiveInt, ...], BeforeValidator(_one_list)] = Field(
        (64,), max_length=32, description="`mlp`: units of each hidden layer; empty makes it linear."
    )


class TrainingConfig(_Group):
    """How the network learns."""

    epochs: int = Field(50, ge=1, le=100_000, description="Most passes over the training images.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Images in one step of the optimizer.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of Adam (Kingma and Ba, 2015).")
    patience: int = Field(
        5,
        ge=1,
        description="Stop after this many epochs without a lower validation loss; the best weights are kept.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Decides the first weights and the order of the images.")


class GateConfig(_Group):
    """What a model must reach before it is published."""

    min_accuracy: float = Field(
        0.0, ge=0, le=1, description="Lowest accuracy on the test images that may be published."
    )


class RegistryConfig(_Group):
    """Where a model is published."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Name of the published model; default: model and dataset, such as `mlp-digits`.",
    )


class RetrainConfig(_Group):
    """Everything a retraining run is asked to do."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()

    @property
    def registry_name(self) -> str:
        """Name under which the model is published: ``registry.name``, or model and dataset."""
        dataset = self.data.name.partition(":")[0].replace("/", "-")
        return self.registry.name or f"{self.model.name}-{dataset}"
