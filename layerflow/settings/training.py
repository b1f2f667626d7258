"""The group ``training``: how the network learns."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from layerflow.errors import did_you_mean, printed, shown
from layerflow.settings.fields import Group, name_or_form

#: Keras' own, by name. Listed, for to ask Keras takes seconds, and a typo must not wait for them.
OPTIMIZERS = (
    *(
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "Ftrl",
        "Lamb",
        "Lion",
        "Muon",
        "Nadam",
        "RMSprop",
    ),
    *("SGD", "ScheduleFreeAdamW"),
)
SCHEDULES = (
    *("CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay", "PiecewiseConstantDecay"),
    "PolynomialDecay",
)
#: What Keras writes when it serialises an object.
_FORM = {"class_name", "config", "module", "registered_name", "build_config"}


def _of_keras(kind: str, known: tuple[str, ...]) -> AfterValidator:
    """See that a name, in whatever case, or the class of a form is one of the ``known``."""

    def check(value: str | dict[str, Any]) -> str | dict[str, Any]:
        name = str(value.get("class_name", "") if isinstance(value, dict) else value).lower()
        names = [each.lower() for each in known]
        if name not in names:
            raise ValueError(f"the name of a Keras {kind}, or its form with `class_name`{did_you_mean(name, names)}")
        if isinstance(value, dict):
            if unknown := sorted(map(str, value.keys() - _FORM)):
                raise ValueError(f"a form with `class_name` and `config`, and without {printed(unknown[0])}")
            if not isinstance(value.get("config") or {}, dict):
                raise ValueError(f"a mapping under `config`, such as {{clipnorm: 1.0}}, not {shown(value['config'])}")
        return value

    return AfterValidator(check)


#: A Keras class by name, or Keras' own serialised form of one.
_KerasForm = Annotated[str | dict[str, Any], BeforeValidator(name_or_form)]


class TrainingConfig(Group):
    """How the network learns."""

    model_config = ConfigDict(title="Training")

    epochs: int = Field(50, ge=1, le=100_000, description="Maximum number of passes over the training images.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Images in one step of the optimizer.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of the optimizer, or of a schedule's start.")
    optimizer: Annotated[_KerasForm, _of_keras("optimizer", OPTIMIZERS)] = Field(
        "adam",
        description="A Keras optimizer by name, or in Keras' serialized form: "
        '`{"class_name": "AdamW", "config": {"weight_decay": 0.01, "clipnorm": 1.0}}`.',
    )
    schedule: Annotated[_KerasForm, _of_keras("schedule", SCHEDULES)] | None = Field(
        None,
        description="A Keras learning rate schedule by name (`CosineDecay`), or in Keras' serialized form; "
        "without `decay_steps` it stretches over all epochs.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="Precision of training. Evaluation and the exported model always use float32."
    )
    compile: Literal["auto", "xla", "graph"] = Field(
        "auto", description="Whether XLA compiles the epoch; `auto`: unless a network on a CPU has convolutions."
    )
    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = Field(
        "val_loss", description="The figure that chooses the best epoch."
    )
    patience: int = Field(
        5, ge=1, description="Stop after this many epochs without a better `monitor`; the best weights are kept."
    )
    checkpoint_seconds: float = Field(
        60, gt=0, description="Most seconds of training that a killed run loses; each epoch ends with a checkpoint."
    )
    memory_budget: int | None = Field(
        None,
        ge=1,
        description="MiB for the training images. If three copies don't fit, they are streamed from the "
        "disk, which changes no bit of the model. Default: half of the free memory.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the first weights and of the order of the images.")
    workers: int = Field(
        1,
        ge=1,
        le=1024,  # more than any all-reduce over so many small steps is good for: a slip of the finger
        description="Processes on a Ray cluster, or on this machine, that share each batch; needs the extra `ray`.",
    )

    @property
    def schedule_stretches(self) -> bool:
        """Whether the schedule stretches over all epochs, so that more epochs would have been another training."""
        if self.schedule is None:
            return False
        given = self.schedule.get("config") or {} if isinstance(self.schedule, dict) else {}
        return "decay_steps" not in given and "boundaries" not in given

    @model_validator(mode="after")
    def _feeds_all(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(f"a batch_size of at least one image a worker; {self.workers} workers share each batch")
        return self
