"""What a retraining is asked to do: one frozen tree of settings.

It is the form that the Prefect UI renders, the flags that the command line takes and the YAML that
``--config`` reads; every field has a default, bounds and a description. Imports neither TensorFlow nor Prefect.
"""

import hashlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from layerflow.errors import did_you_mean, mask, printed, shown

_AUGMENTATION: dict[str, Any] = {"shift": 0, "flip": False}
#: The networks, and the settings that each takes, with their defaults.
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (64,), "dropout": 0.0, **_AUGMENTATION},
    "cnn": {"width": 32, "dropout": 0.5, **_AUGMENTATION},
    "resnet": {"width": 16, "depth": 1, **_AUGMENTATION},
    "vit": {"width": 64, "depth": 4, "heads": 4, "patch_size": 4, "dropout": 0.1, **_AUGMENTATION},
}
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


def _known_model(name: str) -> str:
    if name not in MODELS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(
            f"a model named one of {', '.join(MODELS)}, or mypackage.mymodule:MyNet{did_you_mean(name, MODELS)}"
        )
    return _own_module(name)


def _own_module(name: str) -> str:
    """Refuse Python's own modules: `os:system` with options is a command that a form in the UI would run."""
    if name.partition(":")[0].partition(".")[0] in {*sys.stdlib_module_names, "__main__"}:
        raise ValueError("a module of your own, and none of Python's own")
    return name


def _one_list(value: Any) -> Any:
    """Take ``[[128, 64]]`` and ``["128,64"]`` as ``[128, 64]``: so the command line hands over ``--model.hidden``."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str) and "," in value[0]:
        return value[0].split(",")
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


def _name_or_form(value: Any) -> Any:
    """Take a JSON object in text as the object: that is how the command line can give one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a name or a JSON object ({error})") from error
    return value


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
_KerasForm = Annotated[str | dict[str, Any], BeforeValidator(_name_or_form)]


#: How the bounds of a number are said.
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Say a field's bounds in its description, for `--help` and the form in the UI show nothing else.

        A field's title there is its name as words, as in a flag: the form and the command line must be told together.
        """
        for name, field in cls.model_fields.items():
            field.title = field.title or name.replace("_", " ").capitalize()
            limits = {
                bound: getattr(limit, bound) for limit in field.metadata for bound in _LIMITS if hasattr(limit, bound)
            }
            if limits and field.description:
                said = ", ".join(f"{_LIMITS[bound]} {value:,}" for bound, value in limits.items())
                field.description = f"{field.description.removesuffix('.')}; {said}."
        cls.model_rebuild(force=True)


#: As many as an image that is read may have.
_MOST_PIXELS = 100_000_000


def _require_nameable(path: str) -> None:
    try:
        path.encode()
        Path(path).expanduser()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a folder whose path is text in UTF-8, as records and the server keep it, not {printed(path)}; "
            "rename it, or set a link to it"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"a folder; {printed(path)} names the home of nobody") from error
    if "\0" in path:
        raise ValueError("a folder whose path has no null character")


class DataConfig(_Group):
    """Which images, and how they are divided."""

    model_config = ConfigDict(title="Data")

    name: str = Field(
        "digits",
        max_length=100,
        # Letters, digits and underscores, as TFDS names are: no path can hide in a name.
        pattern=r"^[A-Za-z]\w*(/[A-Za-z0-9][\w.+-]*)?(:\d+\.\d+\.\d+)?$",
        description="`digits` (built in), `folder` (your own images, in `path`), or any TensorFlow Datasets name of "
        "labelled images: `mnist`, `mnist:3.0.1`.",
    )
    path: Path | None = Field(
        None, description="`folder`: where `train/<class>/` lies, and `test/<class>/` where there is one."
    )
    module: Annotated[str, AfterValidator(_own_module)] | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*$",
        max_length=200,
        description="A module of yours that registers a TensorFlow Datasets builder: `mypackage.mydataset`.",
    )
    data_dir: str | None = Field(
        None,
        min_length=1,
        description="Folder, or bucket that TensorFlow Datasets can read, in which the dataset is prepared already.",
    )
    mirror: Path | None = Field(
        None,
        description="Folder of raw files, one sub-folder a dataset, used instead of the network. "
        "Default: the environment variable LAYERFLOW_MIRROR.",
    )
    image_size: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$",
        description="Height and width that images get: `32x32`. Default: their own, if all have the same.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 for grey images, 3 for colour. Default: their own; of a folder, 1 if all are grey."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images held back for the test where the data have no split for it; decided as "
        "`validation_fraction` is.",
    )
    validation_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of the training split held back for validation; the bytes of an image decide, "
        "so that an image stays on its side when others are added.",
    )
    max_broken: float = Field(
        0.0, ge=0, lt=1, description="`folder`: share of the files that may be left out because they can't be read."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for place in filter(None, (self.path, self.mirror, self.data_dir)):
            _require_nameable(str(place))
        if self.size and self.size[0] * self.size[1] > _MOST_PIXELS:
            raise ValueError(f"an image_size of at most {_MOST_PIXELS:,} pixels")
        if self.name == "folder" and self.path is None:
            raise ValueError("--data.path is missing; it names the folder of images that data.name folder reads")
        if self.name != "folder" and self.path is not None:
            raise ValueError("data.path goes with data.name folder; add --data.name folder, or leave data.path out")
        if self.name == "folder" and (self.module or self.data_dir):
            raise ValueError("data.module and data.data_dir with a dataset of TensorFlow Datasets, not with a folder")
        return self

    @property
    def mirror_folder(self) -> Path | None:
        """The mirror in force: this field, or the environment's."""
        default = os.environ.get("LAYERFLOW_MIRROR")
        return self.mirror or (Path(default) if default else None)

    @property
    def title(self) -> str:
        """What the data are called: the dataset's name, or that of the folder."""
        if self.path is None:
            return self.name.partition(":")[0].replace("/", "-")
        name = self.path.expanduser().absolute().name
        title = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "folder"
        # Two folders whose names differ in other letters only are two.
        return title if name.isascii() else f"{title}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:6]}"

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of ``image_size``."""
        if self.image_size is None:
            return None
        height, width = self.image_size.split("x")
        return int(height), int(width)


Level = Literal["info", "warn", "stop"]


class ChecksConfig(_Group):
    """What is looked for in the data before training: `info` notes a finding, `warn` logs it, `stop` ends the run."""

    model_config = ConfigDict(title="Data checks (advanced)")

    leakage: Level = Field("stop", description="More test images than `max_leakage` are in train or validation too.")
    max_leakage: float = Field(
        0.005, ge=0, le=1, description="Share of the test images that may be in train or validation too."
    )
    duplicates: Level = Field("info", description="Images that are in one split several times.")
    conflicts: Level = Field("warn", description="The same image in several classes.")
    missing_class: Level = Field(
        "stop", description="A class without an image in one of the splits; in validation at most a warning."
    )
    small_class: Level = Field(
        "warn",
        description="A class with fewer than `min_class_images` to train on or to test with, or fewer than "
        "`min_class_validation_images` to validate with, which is only noted.",
    )
    min_class_images: int = Field(
        10,
        ge=1,
        description="Fewest training images, and fewest test images, of a class; from 10, a recall has steps of 0.1.",
    )
    min_class_validation_images: int = Field(
        3, ge=1, description="Fewest validation images of a class; they only choose the best epoch."
    )
    imbalance: Level = Field(
        "warn", description="A class with more than `max_imbalance` times the training images of another."
    )
    max_imbalance: float = Field(
        10.0, ge=1, description="How many times as many training images the largest class may have as the smallest."
    )
    left_out: Level = Field("warn", description="Files that were left out because they can't be read.")
    constant_images: Level = Field("warn", description="Images all of whose pixels are the same.")
    new_class: Level = Field("stop", description="A class that the model in service does not know.")
    lost_class: Level = Field("stop", description="A class of the model in service that the data no longer have.")
    class_drift: Level = Field(
        "warn", description="Class shares that differ from those of the model in service by more than `max_psi`."
    )
    max_psi: float = Field(
        0.2, gt=0, description="Highest population stability index of the class shares; 0.2 is a usual bound."
    )
    pixel_drift: Level = Field(
        "warn", description="Pixels or brightness that differ from the model's in service by more than `max_distance`."
    )
    max_distance: float = Field(
        0.1, gt=0, le=1, description="Highest Jensen-Shannon distance of pixel values and of images' brightness."
    )


class ModelConfig(_Group):
    """Which network, and the settings that it takes; those of other networks are refused."""

    model_config = ConfigDict(title="Model")

    name: Annotated[str, AfterValidator(_known_model)] = Field(
        "mlp",
        max_length=200,
        description="The network: `mlp`, `cnn`, `resnet`, `vit`, or your own: `mypackage.mymodule:MyNet`, a class of "
        "Keras models or a function that gives one.",
    )
    hidden: Annotated[tuple[PositiveInt, ...] | None, BeforeValidator(_one_list)] = Field(
        None, max_length=32, description="`mlp`: units of each hidden layer (64); empty makes it linear."
    )
    width: int | None = Field(
        None, ge=1, le=4096, description="`cnn` (32), `resnet` (16): filters of the first stage; `vit` (64): features."
    )
    depth: int | None = Field(None, ge=1, le=100, description="`resnet` (1): blocks a stage; `vit` (4): blocks.")
    heads: int | None = Field(None, ge=1, le=256, description="`vit` (4): heads of the attention; they divide `width`.")
    patch_size: int | None = Field(
        None, ge=1, le=1024, description="`vit` (4): height and width of a patch, which divide those of the images."
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="`mlp` (0), `cnn` (0.5), `vit` (0.1): share of outputs that training leaves out."
    )
    shift: int | None = Field(
        None, ge=0, le=1024, description="Most pixels by which training moves images at random (0)."
    )
    flip: bool | None = Field(None, description="Whether training mirrors images left and right at random (false).")

    options: Annotated[dict[str, Any] | None, BeforeValidator(_name_or_form)] = Field(
        None, description="Your own network: what it is called with, beside `classes` and `image_shape`."
    )

    @model_validator(mode="after")
    def _takes_only_its_own(self) -> Self:
        known = MODELS.get(self.name, {"options": None})
        for field in type(self).model_fields:
            if field != "name" and field not in known and getattr(self, field) is not None:
                raise ValueError(f"settings of {self.name}, which are {', '.join(known)}; {field} is none of them")
        settings = self.settings
        if "heads" in settings and settings["width"] % settings["heads"]:
            raise ValueError(f"heads that divide width; {settings['heads']} does not divide {settings['width']}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What the network is made with: each setting that it takes, or its default."""
        if self.name not in MODELS:
            return self.options or {}
        given = {field: getattr(self, field) for field in MODELS[self.name]}
        return {**MODELS[self.name], **{field: value for field, value in given.items() if value is not None}}


class TrainingConfig(_Group):
    """How the network learns."""

    model_config = ConfigDict(title="Training")

    epochs: int = Field(50, ge=1, le=100_000, description="Most passes over the training images.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Images in one step of the optimizer.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of the optimizer, or a schedule's first.")
    optimizer: Annotated[_KerasForm, _of_keras("optimizer", OPTIMIZERS)] = Field(
        "adam",
        description="A Keras optimizer by name, or Keras' own form of one: "
        '`{"class_name": "AdamW", "config": {"weight_decay": 0.01, "clipnorm": 1.0}}`.',
    )
    schedule: Annotated[_KerasForm, _of_keras("schedule", SCHEDULES)] | None = Field(
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
    memory_budget: int | None = Field(
        None,
        ge=1,
        description="MiB that the training images may take; where three copies don't fit, they are streamed from the "
        "disk, which changes no bit of the model. Default: half of the memory that is free.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Decides the first weights and the order of the images.")
    workers: int = Field(
        1,
        ge=1,
        le=1024,  # more than any all-reduce over so many small steps is good for: a slip of the finger
        description="Processes on a Ray cluster, or on this machine, that share each batch; needs the extra `ray`.",
    )

    @model_validator(mode="after")
    def _feeds_all(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(f"a batch_size of at least one image a worker; {self.workers} workers share each batch")
        return self


class GateConfig(_Group):
    """What a model must reach before it is published."""

    model_config = ConfigDict(title="Gate")

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
    baseline: Literal["majority", "none"] = Field(
        "majority",
        description="What a model must be significantly better than: always answering the test images' most frequent "
        "class, or nothing.",
    )
    min_class_recall: float = Field(
        0.01,  # any above zero: of up to 100 images of a class, one must be recognized
        ge=0,
        le=1,
        description="Lowest recall of any class that may be published; of those with at least `min_class_examples`.",
    )
    min_class_examples: int = Field(
        10,  # a model with a recall of 0.4 misses all of ten images in 0.6 % of cases
        ge=1,
        description="Fewest test images by which the recall of a class is judged.",
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


#: A published name is a folder's, and part of others' names, which file systems limit to 255 bytes.
_PUBLISHED, _MOST_PUBLISHED = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", 100


class RegistryConfig(_Group):
    """Where a model is published."""

    model_config = ConfigDict(title="Registry (advanced)")

    name: str | None = Field(
        None,
        pattern=_PUBLISHED,
        max_length=_MOST_PUBLISHED,
        description="Name of the published model; default: model and dataset, such as `mlp-digits`.",
    )
    keep: int = Field(
        10,
        ge=1,
        description="Versions that are kept; the champion and the one it can be rolled back to always are.",
    )


class DevicesConfig(_Group):
    """How the machine's devices are used; `threads` and `deterministic` change the last bits of a model."""

    model_config = ConfigDict(title="Devices (advanced)")

    memory_limit_mb: int | None = Field(
        None, ge=64, description="Hard limit of each GPU's memory in MiB; without it the memory grows as needed."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of one operation, on which the last bits of a model depend; default: 1 for `mlp` in "
        "batches below 64, otherwise as many as this process may use.",
    )
    deterministic: bool = Field(
        False,
        description="Same bits in every run on a GPU too, at a cost in speed; on a CPU every run with as many threads "
        "has the same bits with or without it, though not those of the other.",
    )

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What decides the order in which sums are rounded, and so the last bits of what is computed.

        Threads that are not set stay so: the same store on a machine with other cores is to be found and continued.
        """
        return self.model_dump(include={"threads", "deterministic"})


class RetrainConfig(_Group):
    """Everything a retraining run is asked to do.

    Every field is optional and keeps its default where it is left as it is. Most runs set `data.name`, `model.name`
    and `training.epochs`.
    """

    model_config = ConfigDict(title="Settings")

    # In this order the form shows them: what most runs set comes first.
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    checks: ChecksConfig = ChecksConfig()
    devices: DevicesConfig = DevicesConfig()

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        name = self.registry_name
        if len(name) > _MOST_PUBLISHED or not re.match(_PUBLISHED, name):
            raise ValueError(
                f"a published name of at most {_MOST_PUBLISHED} letters, digits, `.`, `_` and `-`; model and data make "
                f"{printed(name)} of {len(name)}: set registry.name"
            )
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
    def as_flags(self) -> str:
        """The settings that are not the defaults, as the command line takes them; secrets in addresses are ``***``."""
        words = []
        for group, settings in self.model_dump(mode="json", exclude_defaults=True).items():
            for field, value in settings.items():
                text = shlex.quote(mask(value if isinstance(value, str) else json.dumps(value)))
                words.append(f"--{group}.{field}{'=' if isinstance(value, bool) else ' '}{text}")
        return " ".join(words)

    @property
    def registry_name(self) -> str:
        """Name under which the model is published: ``registry.name``, or model and dataset."""
        return self.registry.name or f"{self.model.name.rpartition(':')[2]}-{self.data.title}"
