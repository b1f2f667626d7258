"""The networks, and that their saved files load where the training code is known."""

from pathlib import Path

import keras
import numpy as np
import pytest

from layerflow.config import ModelConfig
from layerflow.models import Mlp, make_model


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (7, 5, 3)])
@pytest.mark.parametrize("hidden", [(), (4,), (6, 3)])
def test_any_image_shape_and_hidden_sizes_give_one_logit_a_class(
    shape: tuple[int, int, int], hidden: tuple[int, ...]
) -> None:
    network = make_model(ModelConfig(hidden=hidden), classes=5)
    network.build((None, *shape))
    logits = network(np.zeros((3, *shape), np.uint8))
    assert logits.shape == (3, 5)
    assert logits.dtype == "float32"


def test_the_tutorials_network_has_its_number_of_parameters() -> None:
    network = Mlp(hidden=(64,), classes=10)
    network.build((None, 28, 28, 1))
    assert network.count_params() == 784 * 64 + 64 + 64 * 10 + 10


def test_pixels_are_scaled_to_one() -> None:
    network = Mlp(hidden=(), classes=2)
    network.build((None, 1, 1, 1))
    network.head.w.assign([[1.0, -1.0]])
    np.testing.assert_allclose(network(np.full((1, 1, 1, 1), 255, np.uint8)), [[1.0, -1.0]])


def test_a_saved_model_answers_the_same_after_loading(tmp_path: Path) -> None:
    network = Mlp(hidden=(4,), classes=3)
    network.build((None, 8, 8, 1))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), network(images))


def test_images_without_a_fixed_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one fixed shape"):
        Mlp(hidden=(), classes=2).build((None, None, 8, 1))
