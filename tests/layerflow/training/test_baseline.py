"""The warning about a training that learned nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layerflow.records import DatasetRef, Epoch, TrainedRef
from layerflow.training.baseline import warn_if_not_beaten

#: Ten validation images, of which six are cups.
LABELS = [1, 1, 0, 1, 2, 1, 0, 1, 1, 2]


@pytest.fixture
def warned(empty_store: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """What is logged about a training with these validation accuracies by epoch, of which one was the best."""
    folder = empty_store / "load_data" / "key"
    folder.mkdir(parents=True)
    np.save(folder / "validation_images.npy", np.zeros((10, 1, 1, 1), np.uint8))
    np.save(folder / "validation_labels.npy", np.array(LABELS, np.int32))
    data = DatasetRef.model_construct(folder="load_data/key", classes=("bowl", "cup", "fork"))

    def train(*accuracies: float, best: int) -> str:
        figures = {"loss": 1.0, "accuracy": 1.0, "val_loss": 1.0, "seconds": 1.0}
        history = tuple(Epoch(epoch=at + 1, val_accuracy=each, **figures) for at, each in enumerate(accuracies))
        caplog.clear()
        warn_if_not_beaten(TrainedRef.model_construct(best_epoch=best, history=history), data)
        return "\n".join(each.getMessage() for each in caplog.records if each.name == "layerflow.training.baseline")

    return train


def test_a_training_that_stays_at_the_baseline_is_warned_of_once(warned: Callable[..., str]) -> None:
    said = warned(0.6, 0.6, best=2)
    assert said.count("validation accuracy 0.6000 is not above 0.6000, which always answering cup gives") == 1
    assert "is not above" in warned(0.2, 0.3, best=1)
    assert "is not above" in warned(0.7, 0.6, best=2), "what ships counts"


def test_a_training_above_the_baseline_is_not(warned: Callable[..., str]) -> None:
    assert warned(0.6, 0.7, best=2) == ""
    assert warned(float(np.float32(0.7)), best=1) == ""
