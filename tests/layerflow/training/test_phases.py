"""Fine-tuning: first the head on a frozen backbone, then what is unfrozen."""

import logging
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow import artifacts, store
from layerflow.cards.training import write_card
from layerflow.config import RetrainConfig
from layerflow.data.load import load
from layerflow.models.build import build, make_model
from layerflow.models.networks import load_model
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import engine, session, train
from layerflow.training.checkpoint import Checkpoint
from layerflow.training.features import features_of
from layerflow.training.phases import Phase, freeze, phase_at, phases_of
from layerflow.weights import FirstWeights, LoadedWeights

FULL = LoadedWeights(
    source="pets@1",
    file="model.keras",
    sha256="",
    license="unknown",
    loaded=9,
    parameters=9,
    skipped=0,
    new=0,
    skipped_layers=(),
    new_layers=(),
)
NEW_HEAD = FULL.model_copy(update={"new": 1, "new_layers": ("head/2",)})


def planned(weights: LoadedWeights | None, finetune: dict[str, Any], **training: Any) -> list[tuple[Any, ...]]:
    """First epoch, epochs, share and learning rate of each phase."""
    phases = phases_of(TrainingConfig(**training), FinetuneConfig(**finetune), weights)
    return [(each.first, each.config.epochs, each.share, pytest.approx(each.config.learning_rate)) for each in phases]


def test_the_phases_follow_from_the_settings() -> None:
    assert planned(None, {}, epochs=20) == [(1, 20, None, 1e-3)], "nothing is given: everything learns"
    assert planned(FULL, {}, epochs=20) == [(1, 20, 1.0, 1e-4)], "the head is known, too"
    assert planned(NEW_HEAD, {}, epochs=20) == [(1, 5, 0.0, 1e-3), (6, 15, 1.0, 1e-4)]
    given = {"head_epochs": 3, "unfreeze": 0.25, "learning_rate": 5e-5}
    assert planned(FULL, given, epochs=4) == [(1, 3, 0.0, 1e-3), (4, 1, 0.25, 5e-5)]
    assert planned(NEW_HEAD, {"unfreeze": "none"}, epochs=20) == [(1, 20, 0.0, 1e-3)]
    assert planned(NEW_HEAD, {}, epochs=5) == [(1, 5, 0.0, 1e-3)], "no epoch is left after those of the head"


def test_the_smaller_rate_replaces_that_of_an_optimizer_or_a_schedule() -> None:
    optimizer = {"class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.9}}
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.2, "decay_steps": 9}}
    config = TrainingConfig(optimizer=optimizer, epochs=9)
    last = phases_of(config, FinetuneConfig(), NEW_HEAD)[-1].config
    assert last.learning_rate == pytest.approx(0.05)
    assert last.optimizer == {"class_name": "SGD", "config": {"momentum": 0.9}}
    last = phases_of(TrainingConfig(schedule=schedule, epochs=9), FinetuneConfig(), NEW_HEAD)[-1].config
    assert last.learning_rate == pytest.approx(0.02)
    assert last.schedule == {"class_name": "CosineDecay", "config": {"decay_steps": 9}}


def test_an_epoch_is_in_the_last_phase_that_has_begun() -> None:
    phases = phases_of(TrainingConfig(), FinetuneConfig(), NEW_HEAD)
    assert [phase_at(phases, epoch).first for epoch in (1, 5, 6, 50)] == [1, 1, 6, 6]


@pytest.mark.parametrize(
    ("share", "learns"),
    [
        (None, ["conv2d", "batch_normalization", "conv2d", "batch_normalization", "dense", "batch_normalization"]),
        (0.0, []),
        (0.5, ["dense"]),
        (1.0, ["conv2d", "conv2d", "dense"]),
    ],
)
def test_the_last_layers_of_the_backbone_learn_and_no_normalization_does(share: float | None, learns: list) -> None:
    network = make_model(ModelConfig(name="cnn", width=4), 3, (8, 8, 1))
    freeze(network, Phase(1, TrainingConfig(), share))
    found = [layer.name.rstrip("_0123456789") for layer in network.chain if layer.trainable_weights]
    assert found == [*learns, "logits"]


def test_the_layers_of_an_inner_model_are_taken_in_their_order() -> None:
    network = make_model(
        ModelConfig(name="applications:MobileNetV3Small", options={"alpha": 0.35, "minimalistic": True}), 3, (32, 32, 3)
    )
    freeze(network, Phase(1, TrainingConfig(), 0.1))
    names = [layer.name for layer in network.backbone.layers if layer.weights]
    learning = [layer.name for layer in network.backbone.layers if layer.trainable_weights]
    assert learning
    assert learning == [name for name in names[-len(names) // 10 :] if name in learning], "the last ones"


@pytest.fixture(scope="module")
def tuned(digits: DatasetRef) -> ModelRef:
    """A small convolutional network that starts from weights of a file."""
    file = store.root() / "first.weights.h5"
    make_model(ModelConfig(name="cnn", width=4), 10, digits.image_shape).save_weights(file)
    config = ModelConfig(name="cnn", width=4, weights=str(file))
    first = FirstWeights(digest="first", source="first", file=file)
    return artifacts.make("build_model", "tuned", ModelRef, lambda folder: build(config, digits, 0, folder, first))


def fit(model: ModelRef, data: DatasetRef, folder: Path, finetune: dict[str, Any], **settings: Any) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    augment = settings.pop("augment", AugmentConfig())
    return train.train(
        TrainingConfig(**settings), model, data, folder, augment=augment, finetune=FinetuneConfig(**finetune)
    )


def weights(folder: Path) -> list[np.ndarray]:
    return load_model("cnn", folder / "model.keras").get_weights()


@pytest.mark.slow
def test_only_the_head_learns_and_then_all_but_the_normalization(
    tuned: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    before = load_model("cnn", store.path(tuned.keras))
    made = fit(tuned, digits, tmp_path / "head", {"unfreeze": "none"}, epochs=2, monitor="accuracy")
    assert made.head_epochs == 2
    config = TrainingConfig(epochs=3)
    made = fit(tuned, digits, tmp_path / "both", {"head_epochs": 1}, epochs=3, monitor="accuracy")
    assert made.head_epochs == 1
    write_card(config, made, digits, tmp_path)
    assert "| head alone | epochs 1 to 1 |" in (tmp_path / "card.md").read_text()
    for name, changed in (("head", {"logits"}), ("both", {"logits", "dense", "conv2d"})):
        after = load_model("cnn", tmp_path / name / "model.keras")
        for one, other in zip(before.chain, after.chain, strict=True):
            kind = one.name.rstrip("_0123456789")
            floats = [each for each in zip(one.weights, other.weights, strict=True) if "float" in each[0].dtype]
            same = all(np.array_equal(old, new) for old, new in floats)
            assert same == (kind not in changed), (name, one.name)


@pytest.mark.slow
def test_interrupted_around_the_border_of_two_phases_it_ends_with_the_same_bits(
    tuned: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first phase, right before the border, in the first epoch behind it, and at the end of that."""
    monkeypatch.setattr(session, "_SAVING_SHARE", 1e6)
    monkeypatch.setattr(engine, "_FIRST_CHUNK", 10)
    settings = {"epochs": 4, "batch_size": 32, "checkpoint_seconds": 1e-6, "callbacks": ["ReduceLROnPlateau"]}
    finetune = {"head_epochs": 2}
    shutil.rmtree(store.root() / "checkpoints", ignore_errors=True)
    whole = fit(tuned, digits, tmp_path / "whole", finetune, **settings)
    shutil.rmtree(store.root() / "checkpoints")
    original, deaths = Checkpoint.save, []

    def die(self: Checkpoint, arrays: dict, state: dict) -> None:
        original(self, arrays, state)
        position = [name for name in arrays if name.startswith("variable_")][-4]  # of the engine's four, the first
        moment = len(state["history"]), bool(arrays[position] > 0)
        if moment not in deaths:
            deaths.append(moment)
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", die)
        while True:
            try:
                resumed = fit(tuned, digits, tmp_path / "resumed", finetune, **settings)
            except SystemExit:
                continue
            break
    assert {(1, False), (2, False), (2, True), (3, False)} <= {*deaths}
    for mine, reference in zip(*map(weights, (tmp_path / "resumed", tmp_path / "whole")), strict=True):
        np.testing.assert_array_equal(mine, reference)
    ours, theirs = ([epoch.model_dump(exclude={"seconds"}) for epoch in made.history] for made in (resumed, whole))
    assert ours == theirs
    assert resumed.steps == whole.steps


@pytest.mark.slow
def test_patience_begins_with_the_last_phase(
    tuned: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.Progress, "is_better", lambda self, epoch, monitor: epoch.epoch == 1)
    made = fit(tuned, digits, tmp_path, {"head_epochs": 4}, epochs=20, patience=2)
    assert made.epochs == 6


@pytest.mark.slow
def test_workers_compare_the_checkpoint_that_they_began_with_at_each_border(
    tuned: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chief alone saves: the number of its checkpoint is not that of the others any more."""
    agree, ages = session._Training._agree_on_streaming, []

    def told(training: Any, asked_for: bool) -> bool:
        total = training.workers.total
        with monkeypatch.context() as patch:
            patch.setattr(training.workers, "total", lambda values: ages.append(values[1]) or total(values))
            return agree(training, asked_for)

    monkeypatch.setattr(session._Training, "_agree_on_streaming", told)
    fit(tuned, digits, tmp_path, {"head_epochs": 1}, epochs=2, checkpoint_seconds=1e-6)
    assert len(ages) == 2
    assert ages[0] == ages[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    """Forty colour images of two classes, which differ in brightness."""
    from PIL import Image

    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, brightest in (("dark", 90), ("light", 255)):
        (root / "train" / name).mkdir(parents=True)
        for number in range(60):
            image = Image.fromarray(random.integers(0, brightest, (32, 32, 3), np.uint8))
            image.save(root / "train" / name / f"{number}.png")
    config = DataConfig(name="folder", path=root, validation_fraction=0.2)
    return artifacts.make("load_data", "photos", DatasetRef, lambda folder: load(config, folder))


def pretrained(photos: DatasetRef, dropout: float) -> ModelRef:
    config = ModelConfig(
        name="applications:MobileNetV3Small", options={"alpha": 0.35, "minimalistic": True}, dropout=dropout
    )
    file = store.root() / "backbone.weights.h5"
    if not file.exists():
        make_model(config, 2, photos.image_shape).backbone.save_weights(file)
    config = config.model_copy(update={"weights": str(file)})
    first = FirstWeights(digest="backbone", source="backbone", file=file)
    key = f"pretrained-{dropout}"
    return artifacts.make("build_model", key, ModelRef, lambda folder: build(config, photos, 0, folder, first))


@pytest.mark.slow
def test_features_of_a_frozen_backbone_are_computed_once_and_teach_the_same(
    photos: DatasetRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    computed = "features of the frozen backbone: computed"
    finetune, settings = {"unfreeze": "none"}, {"epochs": 3, "monitor": "accuracy"}
    model = pretrained(photos, 0.0)
    assert model.weights
    assert model.weights.new == 1
    on_features = fit(model, photos, tmp_path / "features", finetune, **settings)
    assert computed in caplog.text
    assert len(list((store.root() / "frozen_features").iterdir())) == 1
    caplog.clear()
    fit(pretrained(photos, 0.3), photos, tmp_path / "other", finetune, learning_rate=0.01, **settings)
    assert computed not in caplog.text, "another head and rate"
    # Images that nothing changes at random go through the whole network, which then learns the same.
    unchanged = AugmentConfig(layers=[{"class_name": "Resizing", "config": {"height": 32, "width": 32}}])
    on_images = fit(model, photos, tmp_path / "images", finetune, augment=unchanged, **settings)
    for ours, theirs in zip(on_features.history, on_images.history, strict=True):
        assert (ours.loss, ours.val_loss) == pytest.approx((theirs.loss, theirs.val_loss), rel=1e-4)
    learned = [
        keras.models.load_model(tmp_path / name / "model.keras", compile=False).get_weights()
        for name in ("features", "images")
    ]
    for one, other in zip(*learned, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_custom_network_has_no_features_whatever_it_calls_its_parts(digits: DatasetRef) -> None:
    network = make_model(ModelConfig(), 10, digits.image_shape)
    network.backbone = network.chain[0]
    assert features_of(network, "mynets.nets:MyNet", digits, xla=False) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"head_epochs": -1}, "greater than or equal to 0"),
        ({"unfreeze": "most"}, "`none`, `all`, or a share of the backbone's layers between 0 and 1, such as 0.3"),
        ({"unfreeze": 1.5}, "a share of the backbone's layers between 0 and 1"),
        ({"learning_rate": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FinetuneConfig(**settings)


def test_finetuning_without_given_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finetune together with model.weights"):
        RetrainConfig.model_validate({"finetune": {"head_epochs": 2}})
    given = {"finetune": {"head_epochs": 2, "unfreeze": "0.3"}, "model": {"weights": "champion"}}
    assert RetrainConfig.model_validate(given).finetune.share == 0.3
