"""What a retraining is asked to do: one frozen tree of settings.

It is the form that the Prefect UI renders, the flags that the command line takes and the YAML that
``--config`` reads; every field has a default, bounds and a description. Imports neither TensorFlow nor Prefect.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

from layerflow.errors import did_you_mean

MODELS = ("mlp",)
_WITHOUT_CONVOLUTIONS = ("mlp",)


def _known_model(name: str) -> str:
    if name not in MODELS:
        raise ValueError(f"a model named one of {', '.join(MODELS)}{did_you_mean(name, MODELS)}")
    return name


def _one_list(value: Any) -> Any:
    """Take ``[[128, 64]]`` as ``[128, 64]``: the command line hands over ``--model.hidden '[128, 64]'`` so."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


def _name_or_form(value: Any) -> Any:
    """Take a JSON object in text as the object: that is how the command line can give one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"a name or a JSON object ({error})") from error
    return value


#: A Keras class by name, or Keras' own serialised form of one.
_KerasForm = Annotated[str | dict[str, Any], BeforeValidator(_name_or_form)]


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
        0.05,
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
    dropout: float = Field(
        0.0, ge=0, lt=1, description="`mlp`: share of each hidden layer's outputs that training leaves out."
    )


class TrainingConfig(_Group):
    """How the network learns."""

    epochs: int = Field(50, ge=1, le=100_000, description="Most passes over the training images.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Images in one step of the optimizer.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of the optimizer, or a schedule's first.")
    optimizer: _KerasForm = Field(
        "adam",
        description="A Keras optimizer by name, or Keras' own form of one: "
        '`{"class_name": "AdamW", "config": {"weight_decay": 0.01, "clipnorm": 1.0}}`.',
    )
    schedule: _KerasForm | None = Field(
        None,
        description="A Keras learning rate schedule by name (`CosineDecay`), or Keras' own form of one; "
        "without `decay_steps` it stretches over all epochs.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="How training computes; what is evaluated and shipped always computes in float32."
    )
    compile: Literal["auto", "xla", "graph"] = Field(
        "auto", description="Whether XLA compiles the epoch; auto: unless a network on a CPU has convolutions."
    )
    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = Field(
        "val_loss", description="The figure by which the best epoch is told."
    )
    patience: int = Field(
        5, ge=1, description="Stop after this many epochs without a better `monitor`; the best weights are kept."
    )
    checkpoint_seconds: float = Field(
        60, gt=0, description="Most seconds of training that a killed run loses; epochs end with a checkpoint."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Decides the first weights and the order of the images.")


class GateConfig(_Group):
    """What a model must reach before it is published."""

    rule: Literal["not_worse", "better"] = Field(
        "not_worse",
        description="`not_worse`: not significantly worse than the champion, and not less accurate by more than "
        "`margin`; `better`: significantly better.",
    )
    margin: float = Field(
        0.005, ge=0, le=1, description="How much less accurate than the champion a model may be under `not_worse`."
    )
    min_accuracy: float = Field(
        0.0, ge=0, le=1, description="Lowest accuracy on the test images that may be published."
    )
    min_class_recall: float = Field(
        0.0, ge=0, le=1, description="Lowest recall of any class of the test images that may be published."
    )
    min_test_examples: int = Field(
        100, ge=1, description="Fewest test images that prove anything; with fewer, nothing is published."
    )
    max_latency_ratio: float | None = Field(
        None, gt=0, description="Highest 99th percentile of the latency, as a multiple of the champion's."
    )
    not_comparable: Literal["keep", "floors_only"] = Field(
        "keep",
        description="What happens where the champion can't be compared (other test images or classes, damaged): it "
        "stays, or the floors alone decide.",
    )
    force: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="A reason to publish what the comparison would keep; it stands in the receipt. The floors hold.",
    )


class RegistryConfig(_Group):
    """Where a model is published."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Name of the published model; default: model and dataset, such as `mlp-digits`.",
    )
    keep: int = Field(
        10,
        ge=1,
        description="Versions that are kept; the champion and the one it can be rolled back to always are.",
    )


class DevicesConfig(_Group):
    """How the machine's devices are used; the model does not depend on it."""

    memory_limit_mb: int | None = Field(
        None, ge=64, description="Hard limit of each GPU's memory in MiB; without it the memory grows as needed."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of one operation; default: 1 for networks without convolutions in batches below "
        "64, TensorFlow's choice for the others.",
    )
    deterministic: bool = Field(
        False, description="Same bits on a GPU too, at a cost in speed; on a CPU they are the same anyway."
    )


class RetrainConfig(_Group):
    """Everything a retraining run is asked to do."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    devices: DevicesConfig = DevicesConfig()

    @property
    def devices_for_model(self) -> DevicesConfig:
        """The devices with the threads in force.

        One for a network without convolutions in batches below 64: its products are so small that they lose more by
        being divided than they gain (measured on two cores: 8 % at 32; from 64 on, two threads win, 15 % at 128).
        """
        small = self.model.name in _WITHOUT_CONVOLUTIONS and self.training.batch_size < 64
        return self.devices.model_copy(update={"threads": self.devices.threads or (1 if small else None)})

    @property
    def registry_name(self) -> str:
        """Name under which the model is published: ``registry.name``, or model and dataset."""
        dataset = self.data.name.partition(":")[0].replace("/", "-")
        return self.registry.name or f"{self.model.name}-{dataset}"
