"""The group ``data``: which images, and how they are divided."""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from layerflow.errors import printed
from layerflow.settings.fields import Group, own_module

#: As many as an image that is read may have.
_MOST_PIXELS = 100_000_000
#: Columns of slices: each is a table on a card, and a question that a gate asks.
MOST_SLICE_COLUMNS = 20
#: A part of a split expression, as TFDS reads it: a split, and between brackets percents, examples, or shards of it.
_SPLIT_PART = re.compile(
    r"(?P<split>[A-Za-z_][\w-]*)(\[(?!:\])(((-?\d+(\.\d+)?%)?:(-?\d+(\.\d+)?%)?)|((-?\d+)?:(-?\d+)?)|"
    r"((-?\d+shard)?:(-?\d+shard)?)|(-?\d+shard))\])?"
)


def splits_in(expression: str) -> list[str]:
    """The names of the splits that a TFDS split expression reads.

    Raises:
        ValueError: If it isn't such an expression.

    Example:
        >>> splits_in("train[:80%] + validation")
        ['train', 'validation']
    """
    parts = [_SPLIT_PART.fullmatch(part.strip()) for part in expression.split("+")]
    found = [part["split"] for part in parts if part]
    if len(found) < len(parts):
        raise ValueError("a split expression of TensorFlow Datasets, such as train, train[:80%] or train+validation")
    return found


def _split_expression(expression: str) -> str:
    splits_in(expression)
    return expression.strip()  # TFDS allows spaces around a plus alone


_Expression = Annotated[str, AfterValidator(_split_expression)]


def _require_nameable(path: str, what: str = "folder") -> None:
    try:
        path.encode()
        Path(path).expanduser()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a {what} whose path is text in UTF-8, as records and the server keep it, not {printed(path)}; "
            "rename it, or set a link to it"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"a {what}; {printed(path)} names a user who doesn't exist") from error
    if "\0" in path:
        raise ValueError(f"a {what} whose path has no null character")


class SplitsConfig(Group):
    """Which examples of a TensorFlow Datasets dataset are trained on, validated on and tested on."""

    model_config = ConfigDict(title="Splits of a TensorFlow Datasets dataset")

    train: _Expression | None = Field(
        None, max_length=200, description="What is trained on: `train[:80%]`, `train+validation`. Default: `train`."
    )
    validation: _Expression | None = Field(
        None,
        max_length=200,
        description="What chooses the best epoch: `validation`, `train[80%:90%]`. Default: a share of the training "
        "examples, `data.validation_fraction`.",
    )
    test: _Expression | None = Field(
        None,
        max_length=200,
        description="What the model is tested on: `test`, `train[90%:]`. Default: `test`, else `validation`, else a "
        "share of the training examples, `data.test_fraction`; never a split that is used otherwise.",
    )


class DataConfig(Group):
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
        None, description="`folder`: the folder with `train/<class>/` and, optionally, `test/<class>/`."
    )
    module: Annotated[str, AfterValidator(own_module)] | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*$",
        max_length=200,
        description="Your module that registers a TensorFlow Datasets builder: `mypackage.mydataset`.",
    )
    data_dir: str | None = Field(
        None,
        min_length=1,
        description="Folder or bucket in which TensorFlow Datasets has already prepared the dataset.",
    )
    image: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="TensorFlow Datasets: the image feature to use. Default: the only one, or the one that the dataset "
        "names as its own.",
    )
    label: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="TensorFlow Datasets: the class label to use. Default: the only one, or the one that the dataset "
        "names as its own.",
    )
    splits: SplitsConfig = Field(
        SplitsConfig(), description="TensorFlow Datasets: split expressions, such as `train[:80%]`."
    )
    slices: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="What divides the test images into slices, such as the camera; each gets its own accuracy. "
        "`folder`: a CSV file with a column `file` and others: `slices.csv`. TensorFlow Datasets: names of features: "
        "`camera,site`.",
    )
    mirror: Path | None = Field(
        None,
        description="Folder of raw files, one sub-folder per dataset, used instead of the network. "
        "Default: the environment variable LAYERFLOW_MIRROR.",
    )
    image_size: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$",
        description="Height and width to resize images to: `32x32`. Default: their own, if all are the same.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 for grey images, 3 for colour. Default: their own; for a folder, 1 if all are grey."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images held out for testing if the data have no test split; chosen as for "
        "`validation_fraction`.",
    )
    validation_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of the training split held out for validation, chosen by a hash of each image, "
        "so that an image stays in its split when others are added.",
    )
    max_broken: float = Field(
        0.0, ge=0, lt=1, description="`folder`: share of the files that may be unreadable and left out."
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
        if self.name == "folder" and (self.image or self.label or self.splits != SplitsConfig()):
            raise ValueError(
                "data.image, data.label and data.splits with a dataset of TensorFlow Datasets; a folder has "
                "train/<class>/ and test/<class>/ in their place"
            )
        if self.slices_file:
            _require_nameable(str(self.slices_file), "CSV file")
        names = self.slice_features
        if not all(names) or len(set(names)) < len(names) or len(names) > MOST_SLICE_COLUMNS:
            raise ValueError(
                f"data.slices with at most {MOST_SLICE_COLUMNS} names of features, each once, such as camera,site"
            )
        return self

    @property
    def slices_file(self) -> Path | None:
        """The CSV file that ``slices`` names, for a folder."""
        return Path(self.slices) if self.slices and self.path else None

    @property
    def slice_features(self) -> tuple[str, ...]:
        """The features that ``slices`` names, for a dataset of TensorFlow Datasets."""
        return tuple(name.strip() for name in self.slices.split(",")) if self.slices and not self.path else ()

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
