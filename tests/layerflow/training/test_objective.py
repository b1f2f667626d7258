"""The loss of each image, and the weights of classes."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow.errors import ConfigError
from layerflow.models.predict import softmax
from layerflow.settings.training import LOSSES, TrainingConfig
from layerflow.training.engine import Engine
from layerflow.training.objective import Objective, make_objective

sys.path.append(str(Path(__file__).resolve().parents[2] / "programs"))  # for good: what is named there is imported once

CLASSES = ("cat", "dog", "fox", "owl")
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2], np.int32)
LOGITS = np.random.default_rng(1).normal(0, 2, (len(LABELS), len(CLASSES))).astype(np.float32)
ONE_HOT = np.eye(len(CLASSES), dtype=np.float32)[LABELS]


def objective(**settings: Any) -> Objective:
    return make_objective(TrainingConfig(**settings), LABELS, CLASSES)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_that_of_keras_for_logits(name: str) -> None:
    settings = {} if name == "CategoricalHinge" else {"from_logits": True, "label_smoothing": 0.1}
    oracle = getattr(keras.losses, name)(**settings)
    ours = objective(loss={"class_name": name, "config": {k: v for k, v in settings.items() if k != "from_logits"}})
    mean = float(tf.reduce_mean(ours(tf.constant(LABELS), tf.constant(LOGITS))))
    assert mean == pytest.approx(float(oracle(ONE_HOT, LOGITS)), rel=1e-6)
    assert ours.total(LABELS, LOGITS) / len(LABELS) == pytest.approx(mean, rel=1e-6)


def test_a_form_that_keras_wrote_is_taken_and_gets_logits_all_the_same() -> None:
    written = keras.saving.serialize_keras_object(keras.losses.CategoricalCrossentropy(label_smoothing=0.2))
    assert written["config"]["from_logits"] is False
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.2, from_logits=True)(ONE_HOT, LOGITS)
    mean = tf.reduce_mean(objective(loss=json.dumps(written))(tf.constant(LABELS), tf.constant(LOGITS)))
    assert float(mean) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("recipe_parts:squared", ((ONE_HOT - softmax(LOGITS)) ** 2).sum(axis=-1)),
        (
            {"class_name": "recipe_parts:Scaled", "config": {"factor": 3.0}},
            -3 * np.log(softmax(LOGITS))[np.arange(len(LABELS)), LABELS],
        ),
    ],
    ids=["function", "class"],
)
def test_a_loss_of_ones_own_gets_one_hot_labels_and_logits(loss: Any, expected: np.ndarray) -> None:
    losses = objective(loss=loss)(tf.constant(LABELS), tf.constant(LOGITS))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("recipe_parts:of_the_batch", r"must give the loss of each image, .* Received for two images: \(\)"),
        ("recipe_parts:Halve", "training.loss must name a Keras loss class, or a function of your own"),
        ("recipe_parts:squard", "It has none .*did you mean squared"),
        ("no_such_module:loss", "training.loss must name something that can be imported"),
        (
            {"class_name": "recipe_parts:squared", "config": {"x": 1}},
            "must name a class there: a `config` is for classes",
        ),
        ({"class_name": "recipe_parts:Scaled", "config": {"speed": 1}}, "training.loss is refused by Scaled"),
        (
            {"class_name": "CategoricalCrossentropy", "config": {"reduction": "sum"}},
            "averaged over the images of a batch",
        ),
        ({"class_name": "CategoricalCrossentropy", "config": {"smooth": 1}}, "refused by CategoricalCrossentropy"),
    ],
)
def test_a_loss_that_can_not_be_used_is_one_sentence(loss: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        objective(loss=loss)
    assert "\n" not in str(caught.value)


def test_class_weights_multiply_the_loss_as_in_fit_and_not_in_validation() -> None:
    plain = objective()(tf.constant(LABELS), tf.constant(LOGITS)).numpy()
    ours = objective(class_weight={"dog": 3.0, "fox": 0})
    np.testing.assert_allclose(
        ours(tf.constant(LABELS), tf.constant(LOGITS)), plain * np.array([1, 3, 0, 1])[LABELS], rtol=1e-6
    )
    assert ours.total(LABELS, LOGITS) == pytest.approx(plain.sum(), rel=1e-6)


def test_balanced_weights_are_those_of_scikit_learn_and_a_class_without_images_weighs_one() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS) * 3 / 4  # it counts three classes
    weighted = objective(class_weight="balanced")
    plain = objective()(tf.constant(LABELS), tf.constant(LOGITS))
    np.testing.assert_allclose(weighted(tf.constant(LABELS), tf.constant(LOGITS)), plain * expected[LABELS], rtol=1e-6)
    mixed = tf.fill((1, 4), 0.25)
    loss = weighted(mixed, tf.constant(LOGITS[:1]))
    alone = tf.nn.softmax_cross_entropy_with_logits(mixed, LOGITS[:1])
    np.testing.assert_allclose(loss, alone * np.mean([*expected, 1]), rtol=1e-6)


def test_a_weight_of_no_class_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"No class cats exists \(did you mean cat\?\)"):
        objective(class_weight={"cats": 2.0})


@pytest.mark.slow
def test_without_a_recipe_the_compiled_step_is_the_plain_one() -> None:
    """Operation by operation, it is that of an engine without an objective or an augmentation."""

    def operations(**settings: Any) -> list[str]:
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
        optimizer = keras.optimizers.SGD()
        optimizer.build(network.trainable_variables)
        images = np.zeros((len(LABELS), 4, 4, 1), np.uint8)
        engine = Engine(network, optimizer, images, LABELS, 4, 0, xla=False, **settings)
        window = engine.windows.blank()
        start = tf.constant(window.start)
        graph = engine._run.get_concrete_function(window.images, window.labels, start, start).graph
        bodies = (graph.as_graph_def().library.function, [graph.as_graph_def()])
        return sorted(
            node.op
            for body in bodies
            for part in body
            for node in (part.node_def if hasattr(part, "node_def") else part.node)
        )

    assert operations(objective=objective()) == operations()
    assert operations(objective=objective(class_weight="balanced")) != operations()


def test_losses_that_the_config_knows_are_in_keras() -> None:
    assert all(hasattr(keras.losses, name) for name in LOSSES)
