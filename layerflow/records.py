"""What passes between the steps: small frozen records of paths, counts, digests and figures.

Paths are relative to the store, so that a store can be moved; ``store.path(...)`` makes them absolute. Imports
neither TensorFlow nor Prefect.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from layerflow.findings import Finding, Profile
from layerflow.scores import ClassScore, SliceScore
from layerflow.serving import Abstention, Calibrated, Serving
from layerflow.weights import LoadedWeights


class Record(BaseModel):
    """A step's result. ``folder`` is the step's own folder in the store, and is set by the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = ""

    @property
    def card(self) -> str:
        """The Markdown file for people, of a step that draws one."""
        return f"{self.folder}/card.md"

    @property
    def key_content(self) -> dict[str, object]:
        """What decides the key of the steps after this one: the digest, or every field but the paths."""
        digest = getattr(self, "digest", None)
        return {"digest": digest} if digest else self.model_dump(mode="json", exclude={"folder"})

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether each digest in the record is that of what it names; ``files`` gives the SHA-256 of the step's."""
        return True


class PackRef(Record):
    """Images of one shape, kept once for all versions of data that have them.

    ``images.npy`` has them, ``uint8`` of shape ``(rows, height, width, channels)``. ``digests.npy`` has the SHA-256 of
    each, ``uint8`` of shape ``(rows, 32)``, and ``test_places.npy`` the number by which ``data.test_fraction`` chooses,
    ``uint64`` of shape ``(rows,)``.
    """

    digest: str
    rows: int
    image_shape: tuple[int, int, int]

    @staticmethod
    def digest_of(files: Mapping[str, str], image_shape: Sequence[int]) -> str:
        """``digest`` of a pack whose files have these SHA-256."""
        return _digest([files["digests.npy"], files["test_places.npy"], list(image_shape)])

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the rows are those of the digest."""
        return self.digest == self.digest_of(files, self.image_shape)


class DatasetRef(Record):
    """A version of prepared data: its images are rows of packs, ``uint8``, and its labels are ``int32``.

    ``<split>_sha256.npy`` has the SHA-256 of each image, ``uint8`` of shape ``(examples, 32)``, ``<split>_labels.npy``
    the number of its class, and ``<split>_rows.npy`` where it is, ``uint32`` of shape ``(examples, 2)``: the number of
    a pack in ``parts.json``, and the row. Of images that were files, ``<split>_sources.npy`` tells from which.
    ``slices`` names what ``test_slices.npy`` divides the test images by. ``digest`` and ``test_digest`` depend on
    images, labels, and classes alone.
    """

    name: str
    version: str
    digest: str
    test_digest: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    broken: int
    image_rule: str
    split_rule: str
    slices: tuple[str, ...] = ()
    slices_digest: str | None = None

    @staticmethod
    def digests_of(files: Mapping[str, str], classes: Sequence[str]) -> tuple[str, str]:
        """``digest`` and ``test_digest`` of the arrays with these SHA-256, by file name, and of the classes' names."""
        images = "_images.npy" if "test_images.npy" in files else "_sha256.npy"  # an earlier layerflow had no packs
        arrays = {name: files[name] for name in files if name.endswith((images, "_labels.npy"))}
        test = [files[f"test{images}"], files["test_labels.npy"], list(classes)]
        return _digest([arrays, list(classes)]), _digest(test)

    @staticmethod
    def slices_digest_of(files: Mapping[str, str]) -> str | None:
        """``slices_digest`` of the files with these SHA-256, if slices are among them."""
        named = [files[name] for name in ("test_slices.npy", "test_slices.json") if name in files]
        return _digest(named) if named else None

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether images, labels, classes and slices are those of the digests."""
        images = (self.digest, self.test_digest) == self.digests_of(files, self.classes)
        return images and self.slices_digest == self.slices_digest_of(files)


class DataReport(Record):
    """What was found in the data before training; the card is the report for people."""

    name: str
    data_digest: str
    profile: Profile
    findings: tuple[Finding, ...]


class ModelRef(Record):
    """A built, untrained model, saved as ``.keras``."""

    name: str
    digest: str
    parameters: int
    #: What the network was made with: each of its settings, the defaults too.
    settings: dict[str, object] = {}
    weights: LoadedWeights | None = None  # where its first weights are from; nothing if all are new

    @property
    def keras(self) -> str:
        """The ``.keras`` file."""
        return f"{self.folder}/model.keras"


class Epoch(BaseModel):
    """One epoch's figures; ``seconds`` is that of training, validation and checkpoint together.

    Each of ``training.metrics`` adds a figure, such as ``val_auc``.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[str, float]
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


class TrainedRef(Record):
    """A trained model, saved as ``.keras`` with the weights of its best epoch."""

    model: str
    digest: str
    epochs: int
    best_epoch: int
    #: The first epochs, in which only the head learned.
    head_epochs: int = 0
    steps: int
    compiled: str
    feed: Literal["resident", "streamed"]
    threads: int
    #: Threads of the processes that this training was resumed from, where they had others: its bits are of both.
    threads_before: tuple[int, ...] = ()
    replicas: int
    history: tuple[Epoch, ...]

    @property
    def keras(self) -> str:
        """The ``.keras`` file."""
        return f"{self.folder}/model.keras"


class Evaluation(Record):
    """Exact figures over every test example. The probabilities, as they ship, are kept on disk."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    test_examples: int
    test_digest: str
    per_class: tuple[ClassScore, ...]
    #: Of very many classes empty: then it is ``confusion.npy`` beside the probabilities.
    confusion: tuple[tuple[int, ...], ...]
    predictions_digest: str
    #: In the order of ``test_slices.json``.
    slices: tuple[SliceScore, ...] = ()
    serving: Serving = Serving()
    calibrated: Calibrated | None = None
    abstention: Abstention | None = None

    @property
    def tested(self) -> tuple[ClassScore, ...]:
        """The scores of the classes that the test examples have."""
        return tuple(score for score in self.per_class if score.examples)

    @property
    def majority(self) -> ClassScore:
        """The most frequent class of the test examples, the first of equal ones."""
        return max(self.tested, key=lambda score: score.examples)

    @property
    def baseline(self) -> float:
        """The accuracy of always answering the most frequent class."""
        return self.majority.examples / self.test_examples

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes, each counting the same."""
        return sum(score.recall for score in self.tested) / len(self.tested)

    @property
    def worst(self) -> ClassScore:
        """The class with the lowest recall, the first of equal ones."""
        return min(self.tested, key=lambda score: score.recall)

    @property
    def lowest_slice(self) -> SliceScore | None:
        """The slice with the lowest upper end of its accuracy's interval, because a few images prove little."""
        return min(self.slices, key=lambda score: score.accuracy_high, default=None)

    @property
    def predictions(self) -> str:
        """The ``.npy`` file of probabilities."""
        return f"{self.folder}/predictions.npy"

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the probabilities are those of the digest."""
        return files.get("predictions.npy") == self.predictions_digest


class ExportRef(Record):
    """A SavedModel with its golden examples; ``files`` gives the SHA-256 of each file."""

    digest: str
    files: dict[str, str]
    signatures: tuple[str, ...] = ()  # those beside ``serving_default``
    refused_files: str = ""  # by ``image_bytes``, though training reads them

    @property
    def saved_model(self) -> str:
        """The SavedModel's folder."""
        return f"{self.folder}/saved_model"

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the SavedModel's files are those of the digests."""
        return {f"saved_model/{name}": digest for name, digest in self.files.items()} == files


class Check(BaseModel):
    """One thing that verification saw to be true."""

    model_config = ConfigDict(frozen=True)

    name: str
    detail: str


class Verification(Record):
    """What a fresh process that knows nothing of this code found in the export.

    Of each class, in the order of the data's: its test examples, those of them that were recognized, and how often it
    was predicted. Of each slice, in the order of the evaluation's: its test examples, and those of them that were
    recognized. ``ties`` is the number of examples whose two most probable classes are as good as equal. Of the test
    files of a folder, ``files_same`` become the pixels of training, and ``files_refused`` are refused by the graph.
    """

    export_digest: str
    checks: tuple[Check, ...]
    test_examples: int
    test_accuracy: float
    class_examples: tuple[int, ...]
    class_right: tuple[int, ...]
    class_predicted: tuple[int, ...]
    slice_examples: tuple[int, ...] = ()
    slice_right: tuple[int, ...] = ()
    ties: int
    files_same: int | None = None
    files_refused: int | None = None
    max_difference: float
    load_seconds: float
    latency_p50_ms: float
    latency_p99_ms: float
    tensorflow: str
    seed: int  # by which the batches were drawn


class Change(BaseModel):
    """Something that two receipts say differently, such as ``config.training.epochs``."""

    model_config = ConfigDict(frozen=True)

    field: str
    before: object
    after: object


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
