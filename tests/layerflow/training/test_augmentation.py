"""Augmentation inside the compiled step: what it draws, what it leaves, and what a killed training draws again."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import artifacts, store
from layerflow.errors import ConfigError
from layerflow.models.build import build
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import LAYERS, AugmentConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import engine as engine_module
from layerflow.training import train as training
from layerflow.training.augmentation import Augmentation, make_augmentation
from layerflow.training.checkpoint import Checkpoint
from layerflow.training.engine import Engine
from layerflow.training.objective import Objective
from tests.shared import GRAPH

pytestmark = pytest.mark.slow

CLASSES, SHAPE = 5, (12, 12, 3)
#: Arguments of the layers that Keras makes with none.
NEEDED: dict[str, dict[str, Any]] = {
    **{key: {"factor": 0.5} for key in ("RandomBrightness", "RandomContrast", "RandomRotation", "RandomPosterization")},
    **{key: {"factor": 0.5} for key in ("RandomHue", "RandomSaturation", "RandomSharpness", "RandomColorDegeneration")},
    "RandomPosterization": {"factor": 4},
    "RandomZoom": {"height_factor": 0.3},
    "RandomShear": {"x_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomColorJitter": {"brightness_factor": 0.5},
    "RandomErasing": {"factor": 1.0},
    "RandomGrayscale": {"factor": 0.9},
    **{key: {"height": 12, "width": 12} for key in ("RandomCrop", "CenterCrop", "Resizing")},
}


def augmentation(*layers: Any, seed: int = 0) -> Augmentation:
    made = make_augmentation(AugmentConfig(layers=layers), SHAPE, CLASSES, seed)
    assert made
    return made


def batch(size: int = 16) -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (size, *SHAPE), np.uint8)
    return tf.constant(images), tf.constant(random.integers(0, CLASSES, size, np.int32))


def run(changes: Any, step: int = 7) -> tuple[np.ndarray, np.ndarray]:
    images, labels = changes(*batch(), tf.constant(step, tf.int64))
    return images.numpy(), labels.numpy()


def test_the_layers_that_the_config_knows_are_those_of_keras() -> None:
    base = keras.layers.RandomFlip.__mro__[1]
    theirs = {name for name, each in vars(keras.layers).items() if isinstance(each, type) and issubclass(each, base)}
    assert {*LAYERS} == theirs - {"MaxNumBoundingBoxes"}, "that one knows no images"


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_draws_by_seed_and_step_alone_and_leaves_whole_pixels(name: str) -> None:
    form = {"class_name": name, "config": NEEDED.get(name, {})}
    changes = tf.function(augmentation(form))
    images, labels = run(changes)
    assert (images.shape, images.dtype) == ((16, *SHAPE), np.uint8)
    other, _ = run(changes, step=8)
    again, labels_again = run(changes)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, labels_again)
    if name in ("MixUp", "CutMix"):
        assert (labels.shape, labels.dtype) == ((16, CLASSES), np.float32)
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    else:
        np.testing.assert_array_equal(labels, batch()[1])
    draws = (name.startswith("Random") and name != "RandomCrop") or name in ("AugMix", "MixUp", "CutMix", "RandAugment")
    # What is as large as the images leaves a crop nothing to choose.
    assert (images != other).any() == draws


def test_another_seed_draws_other_numbers_and_the_same_one_the_same() -> None:
    images, again, other = (run(augmentation("RandomFlip", "CutMix", seed=seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(images, again)
    assert (images != other).any()


def test_two_layers_of_one_kind_draw_apart() -> None:
    flip = {"class_name": "RandomFlip", "config": {"mode": "horizontal"}}
    images, _ = run(augmentation(flip, flip))
    assert (images != batch()[0].numpy()).any(), "the same draws would have undone each other"


def test_a_mixed_image_has_the_labels_in_the_shares_of_its_pixels() -> None:
    images, labels = np.zeros((32, *SHAPE), np.uint8), np.arange(32, dtype=np.int32) % CLASSES
    images += (labels * 60).astype(np.uint8)[:, None, None, None]
    mixed, shares = augmentation("MixUp")(tf.constant(images), tf.constant(labels), 3)
    # Half of a step of the rounding to whole pixels.
    np.testing.assert_allclose(mixed.numpy().mean(axis=(1, 2, 3)), shares.numpy() @ (60.0 * np.arange(5)), atol=0.51)


def test_a_chain_of_augmix_is_another_one_in_each_step() -> None:
    """Keras itself would draw the operations once, when the function is traced."""
    changes = tf.function(augmentation({"class_name": "AugMix", "config": {"num_chains": 1, "chain_depth": 1}}))
    images, labels = batch(2)
    changed = [changes(images, labels, tf.constant(step, tf.int64))[0].numpy() for step in range(12)]
    assert len({each.tobytes() for each in changed}) > 8


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["RandomRotation"], "augment.layers is refused by RandomRotation: .*factor"),
        ([{"class_name": "RandomFlip", "config": {"sideways": True}}], "augment.layers is refused by RandomFlip"),
        (
            [{"class_name": "RandomCrop", "config": {"height": 8, "width": 8}}],
            r"must leave images of shape \(12, 12, 3\), .* They leave \(8, 8, 3\); let a Resizing layer come last",
        ),
    ],
)
def test_layers_that_can_not_be_used_are_one_sentence(layers: list[Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        augmentation(*layers)
    assert "\n" not in str(caught.value)


def test_a_crop_that_is_resized_is_fine() -> None:
    crop, back = (
        {"class_name": name, "config": {"height": size, "width": size}}
        for name, size in (("RandomCrop", 8), ("Resizing", 12))
    )
    images, _ = run(augmentation(crop, back))
    assert images.shape == (16, *SHAPE)


@pytest.mark.parametrize("xla", [True, False])
def test_a_step_trains_on_what_the_layers_leave(xla: bool) -> None:
    """The loss of a network that is not trained, on the batches of an epoch, against the layers called by hand."""
    images, labels = batch(20)
    network = keras.Sequential(
        [keras.Input(SHAPE, dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255)]
    )
    network.add(keras.layers.Dense(CLASSES))
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(network.trainable_variables)
    changes = augmentation("RandomFlip", "MixUp")
    engine = Engine(network, optimizer, images, labels, 8, 0, xla=xla, objective=Objective(), augment=changes)
    engine.warm_up()
    while not engine.run_chunk(1):
        pass
    order, expected = engine.windows.order(1), 0.0
    by_hand = tf.function(changes, jit_compile=engine.xla)
    for step, start in enumerate(range(0, 20, 8)):
        these = order[start : start + 8]
        mixed, shares = by_hand(tf.gather(images, these), tf.gather(labels, these), tf.constant(step, tf.int64))
        expected += float(tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(shares, network(mixed))))
    assert engine.loss == pytest.approx(expected / 20, rel=1e-5)


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    config = ModelConfig(hidden=(16,))
    return artifacts.make("build_model", "augmented", ModelRef, lambda folder: build(config, digits, 0, folder))


AUGMENT = AugmentConfig(
    layers=[
        "RandomFlip",
        {"class_name": "RandomTranslation", "config": {"height_factor": 0.1, "width_factor": 0.1}},
        "MixUp",
    ]
)


def train(
    model: ModelRef, data: DatasetRef, folder: Path, augment: AugmentConfig = AUGMENT, **settings: Any
) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    return training.train(TrainingConfig(**GRAPH | settings), model, data, folder, augment=augment)


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


@pytest.mark.parametrize(
    "layers",
    [AUGMENT.layers, pytest.param(("CutMix", "RandomErasing"), marks=pytest.mark.drill)],
    ids=["shift and mix", "cut, erase"],
)
def test_interrupted_in_mid_epoch_it_goes_on_with_the_same_bits(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: Any
) -> None:
    settings = {"epochs": 2, "ema": 0.95, "checkpoint_seconds": 1e-6, "augment": AugmentConfig(layers=layers)}
    settings |= {"batch_size": 100}
    monkeypatch.setattr(engine_module, "CHUNK_SECONDS", 0.0)  # chunks of one step after the first
    monkeypatch.setattr(engine_module, "_FIRST_CHUNK", 1)
    shutil.rmtree(store.root() / "checkpoints", ignore_errors=True)
    whole = train(model, digits, tmp_path / "whole", **settings)
    shutil.rmtree(store.root() / "checkpoints")
    original, saves = Checkpoint.save, 0

    def die(self: Checkpoint, arrays: dict, state: dict) -> None:
        nonlocal saves
        saves += 1
        original(self, arrays, state)
        if saves == 20:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", die)
        with pytest.raises(SystemExit):
            train(model, digits, tmp_path / "resumed", **settings)
    resumed = train(model, digits, tmp_path / "resumed", **settings)
    for mine, reference in zip(*map(weights, (tmp_path / "resumed", tmp_path / "whole")), strict=True):
        np.testing.assert_array_equal(mine, reference)
    ours, theirs = ([epoch.model_dump(exclude={"seconds"}) for epoch in made.history] for made in (resumed, whole))
    assert ours == theirs


def test_what_ships_has_no_augmentation_and_other_layers_are_another_training(
    model: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    mixed = train(model, digits, tmp_path / "mixed", epochs=1)
    plain = train(model, digits, tmp_path / "plain", epochs=1, augment=AugmentConfig())
    assert mixed.history[0].loss != plain.history[0].loss
    kinds = [
        [type(layer) for layer in keras.models.load_model(tmp_path / each / "model.keras").chain]
        for each in ("mixed", "plain")
    ]
    assert kinds[0] == kinds[1]
