"""What you can add to layerflow, and what each kind of extension receives and returns.

An extension is a function or a class of your own, named in the group ``extend`` of the settings. A run imports it
before the first step. ``docs/extending.md`` has an example of each kind, and ``layerflow.testing`` tests yours.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from layerflow.packed import Images

Level = Literal["info", "warn", "stop"]
Split = Literal["train", "validation", "test"]


class Data(NamedTuple):
    """The data of a run.

    Attributes:
        name: The dataset's name.
        digest: SHA-256 of images, labels and classes.
        classes: The names of the classes, in the order of their numbers.
        image_shape: ``(height, width, channels)``.
        split: Gives the images and the labels of a split, memory-mapped: ``uint8`` of shape ``(examples, height, width,
            channels)``, and ``int32`` of shape ``(examples,)``. They can't be written.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    split: Callable[[Split], tuple[Images | np.ndarray, np.ndarray]]


class Check(Protocol):
    """A check of the data before training (``extend.checks``): a function that yields what it finds.

    A finding is a level and a sentence: ``info`` is recorded, ``warn`` is logged too, and ``stop`` ends the run. The
    sentence says what is wrong and, after a semicolon, what to do.

    Example:
        >>> def dark_images(data):
        ...     images, _ = data.split("train")
        ...     dark = sum(image.mean() < 8 for image in images)
        ...     if dark:
        ...         yield "warn", f"{dark:,} training images are almost black; remove them"
    """

    def __call__(self, data: Data) -> Iterable[tuple[Level, str]]: ...


class Metric(Protocol):
    """A figure of a model on the test images (``extend.metrics``): a function that gives a finite number.

    ``labels`` are ``int32`` of shape ``(examples,)``, and ``probabilities`` are ``float32`` of shape ``(examples,
    classes)``, as the model ships. ``gate.metric`` takes the same function, to compare two models by it.

    Example:
        >>> def doubt(labels, probabilities):
        ...     return (probabilities.max(axis=-1) < 0.5).mean()
    """

    def __call__(self, labels: np.ndarray, probabilities: np.ndarray) -> float: ...


class Exporter(Protocol):
    """Another format of the model (``extend.exporters``): a class without arguments.

    Each method runs in a process of its own. What ``load`` gives answers all test images, and the format is published
    only if it is not worse than the SavedModel, by the gate's test.

    Attributes:
        file: Name of its file, such as ``model.npz``.
    """

    file: str

    def export(self, saved_model: Path, file: Path) -> None:
        """Write ``file``, from the SavedModel in the folder ``saved_model``."""

    def load(self, file: Path) -> Callable[[np.ndarray], np.ndarray]:
        """What answers images by ``file`` alone.

        It takes ``uint8`` images of shape ``(batch, height, width, channels)``, in batches of any size, and gives
        probabilities, floats of shape ``(batch, classes)``.
        """


class Run(NamedTuple):
    """What is known of a run: in training the epochs so far, and everything once the model was decided about.

    Attributes:
        id: The training's: every retry, resumption and repetition of it has the same.
        name: The model's name.
        settings: Of the run, as a tree. Secrets in addresses are ``***``.
        data: Name, version, digest, counts by split, and classes of the data.
        epochs: Figures of each epoch: ``epoch`` counts from 1, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``,
            and those of ``training.metrics``. In a resumed training, those before it are missing until the end.
        figures: Of the test images: ``test_accuracy``, ``test_loss``, and those of ``extend.metrics``. Empty in
            training, as all below is; ``saved_model`` is None then.
        cards: Markdown by name: ``evaluation``, ``training``, ``export``, ``data``, and ``checks`` and ``metrics`` of
            extensions.
        saved_model: The folder of the SavedModel.
        decision: ``code``, ``reason``, and ``version``, the number of the version with this model or None.
    """

    id: str
    name: str
    settings: dict[str, Any]
    data: dict[str, Any]
    epochs: tuple[dict[str, float], ...]
    figures: dict[str, float]
    cards: dict[str, str]
    saved_model: Path | None
    decision: dict[str, Any]


class Tracker(Protocol):
    """A place where runs are recorded (``extend.trackers``): a function that receives all that is known so far.

    It is called after each epoch and once at the end, so it must write what is new and leave the rest. One that fails
    is named in the log; the run goes on.

    Example:
        >>> def to_file(run):
        ...     Path(f"{run.id}.json").write_text(json.dumps({"epochs": run.epochs, "figures": run.figures}))
    """

    def __call__(self, run: Run) -> None: ...


class Version(NamedTuple):
    """A published version.

    Attributes:
        name: The model's name.
        number: Its version.
        folder: The SavedModel with its receipt, report, list of digests, and formats. It must not be written to.
        receipt: Content of ``receipt.json``.
    """

    name: str
    number: int
    folder: Path
    receipt: dict[str, Any]


class Publisher(Protocol):
    """What takes a new version elsewhere (``extend.publishers``): a function.

    It is called once for a version, after that is in service here. If it fails, the run fails with its words, the
    version stays, and the next run calls it again: it must bear to be called twice.

    Example:
        >>> def to_the_shop(version):
        ...     shutil.copytree(version.folder, f"/mnt/shop/{version.name}/{version.number}", dirs_exist_ok=True)
    """

    def __call__(self, version: Version) -> None: ...
