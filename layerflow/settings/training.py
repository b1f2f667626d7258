"""The group ``training``: how the network learns."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from layerflow.errors import did_you_mean, printed
from layerflow.settings.fields import (
    Group,
    KerasForm,
    class_named,
    name_or_form,
    name_or_forms,
    own_module,
    settings_in,
)

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
#: Losses of one-hot labels and logits.
LOSSES = (
    *("BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy"),
    "CategoricalHinge",
)
#: Metrics of one-hot labels and probabilities.
METRICS = (
    *("AUC", "CategoricalAccuracy", "CategoricalCrossentropy", "F1Score", "FBetaScore", "KLDivergence"),
    *("MeanSquaredError", "OneHotMeanIoU", "Precision", "PrecisionAtRecall", "Recall", "RecallAtPrecision"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity", "TopKCategoricalAccuracy"),
)
#: Those of layerflow: ``layerflow.training.class_metrics``.
OWN_METRICS = ("BalancedAccuracy", "ExpectedCost")
#: Callbacks that work from the figures of an epoch alone.
CALLBACKS = ("EarlyStopping", "ReduceLROnPlateau")
#: The figures that every epoch has.
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


def is_maximized(figure: str) -> bool:
    """Whether a higher value of ``figure`` is better, as its name says.

    Example:
        >>> is_maximized("val_auc"), is_maximized("val_mean_squared_error")
        (True, False)
    """
    return not re.search("loss|error|cost|crossentropy|divergence|hinge", figure)


def _of_keras(kind: str, known: tuple[str, ...], own: str = "") -> AfterValidator:
    """Check that a name, in any case, or the class of a form is one of the ``known``, or that of a user's ``own``."""

    def check(value: str | dict[str, Any]) -> str | dict[str, Any]:
        name, names = class_named(value), [each.lower() for each in known]
        if own and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
            own_module(name)
        elif name.lower() not in names:
            yours = f", or mypackage.mymodule:{own}" if own else ""
            raise ValueError(
                f"the name of a Keras {kind}, or its form with `class_name`{yours}{did_you_mean(name.lower(), names)}"
            )
        return value

    return AfterValidator(check)


def _class_weight(value: Any) -> Any:
    """Check ``balanced`` or a map of weights, given as text or not."""
    value = name_or_form(value)
    if value is None or value == "balanced":
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError('`balanced`, or a map of class names to weights, such as {"cat": 2.0}')
    weights: dict[str, float] = {}
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
            raise ValueError(f"weights from 0 to 1,000,000; that of {printed(str(name))} is not one")
        weights[str(name)] = float(weight)
    return weights


def _metric_name(form: str | dict[str, Any]) -> str:
    """What the figure of a metric is called: its ``name``, or that of its class, as Keras writes it."""
    name = settings_in(form).get("name") or class_named(form).rpartition(":")[2]
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", str(name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()


class TrainingConfig(Group):
    """How the network learns."""

    model_config = ConfigDict(title="Training")

    epochs: int = Field(50, ge=1, le=100_000, description="Maximum number of passes over the training images.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Images in one step of the optimizer.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of the optimizer, or of a schedule's start.")
    optimizer: Annotated[KerasForm, _of_keras("optimizer", OPTIMIZERS)] = Field(
        "adam",
        description="A Keras optimizer by name, or in Keras' serialized form: "
        '`{"class_name": "AdamW", "config": {"weight_decay": 0.01, "clipnorm": 1.0}}`.',
    )
    schedule: Annotated[KerasForm, _of_keras("schedule", SCHEDULES)] | None = Field(
        None,
        description="A Keras learning rate schedule by name (`CosineDecay`), or in Keras' serialized form; "
        "without `decay_steps` it stretches over all epochs.",
    )
    warmup_epochs: float = Field(
        0, ge=0, le=1000, description="Epochs in which the learning rate rises from 0; the schedule begins after them."
    )
    loss: Annotated[KerasForm, _of_keras("loss", LOSSES, "MyLoss")] = Field(
        "CategoricalCrossentropy",
        description="What training minimizes: a Keras loss of one-hot labels and logits by name, in Keras' form "
        '(`{"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}}`), or your own: '
        "`mypackage.mymodule:my_loss`.",
    )
    class_weight: Annotated[str | dict[str, float], BeforeValidator(_class_weight)] | None = Field(
        None,
        description="How much the images of each class count in training: `balanced`, so that all classes count the "
        'same, or a map such as `{"cat": 2.0}`, in which a class that is missing has weight 1.',
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, such as 0.99; the average is evaluated and shipped.",
    )
    callbacks: Annotated[
        tuple[Annotated[KerasForm, _of_keras("callback", CALLBACKS, "MyCallback")], ...],
        BeforeValidator(name_or_forms),
        Field(max_length=32),
    ] = Field(
        (),
        description="Keras callbacks that act at the end of an epoch: `EarlyStopping`, `ReduceLROnPlateau`, or your "
        "own `mypackage.mymodule:MyCallback`; by name or in Keras' form.",
    )
    metrics: Annotated[
        tuple[Annotated[KerasForm, _of_keras("metric", (*METRICS, *OWN_METRICS), "my_metric")], ...],
        BeforeValidator(name_or_forms),
        Field(max_length=32),
    ] = Field(
        (),
        description="Metrics of the validation images, reported for each epoch: Keras' `AUC`, `F1Score` and others, "
        "`BalancedAccuracy`, `ExpectedCost`, or your own `mypackage.mymodule:my_metric`; by name or in Keras' form.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="Precision of training. Evaluation and the exported model always use float32."
    )
    compile: Literal["auto", "xla", "graph"] = Field(
        "auto", description="Whether XLA compiles the epoch; `auto`: unless a network on a CPU has convolutions."
    )
    monitor: str = Field(
        "val_loss",
        max_length=200,
        description="The figure that chooses the best epoch: `val_loss`, `val_accuracy`, `loss`, `accuracy`, or that "
        "of a metric, such as `val_auc`. One with `loss`, `error`, `cost`, `crossentropy`, `divergence` or `hinge` "
        "in its name is minimized, any other maximized.",
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

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What the figures of ``metrics`` are called, without ``val_``."""
        return tuple(map(_metric_name, self.metrics))

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures of each epoch."""
        return (*FIGURES, *(f"val_{name}" for name in self.metric_names))

    @property
    def own_code(self) -> tuple[tuple[str, str], ...]:
        """What is imported for the training: the setting, and the name that it gives."""
        given = {"loss": (self.loss,), "callbacks": self.callbacks, "metrics": self.metrics}
        names = ((f"training.{field}", class_named(form)) for field, forms in given.items() for form in forms)
        return tuple((setting, name) for setting, name in names if ":" in name)

    @model_validator(mode="after")
    def _feeds_all(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(f"a batch_size of at least one image a worker; {self.workers} workers share each batch")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for reason in self._contradictions():
            raise ValueError(reason)
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.warmup_epochs >= self.epochs:
            yield f"fewer warmup_epochs than epochs; {self.warmup_epochs:g} of {self.epochs} leave nothing after them"
        names = printed(", ".join(self.figures), 400)
        if len({*self.figures}) < len(self.figures):
            yield f"metrics whose figures have names of their own; two of {names} are the same, so give one a `name`"
        if self.monitor not in self.figures:
            near = did_you_mean(self.monitor, self.figures)
            yield f"a monitor that is one of {names}{near}; {self.monitor!r} is not"
        if self.ema and "use_ema" in settings_in(self.optimizer):
            yield "an average of the weights by ema, or by the optimizer's use_ema; both are set"
        if self.workers > 1 and self.callbacks:
            yield f"callbacks with one worker only, since each of {self.workers} would call its own"
        reduces = "reducelronplateau" in (class_named(form).lower() for form in self.callbacks)
        if reduces and (self.schedule or self.warmup_epochs):
            yield "no callback ReduceLROnPlateau beside schedule or warmup_epochs, which set the learning rate too"
