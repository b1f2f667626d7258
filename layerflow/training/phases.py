"""The phases of a training: first the head on a frozen backbone, then what is unfrozen, with a smaller rate."""

import logging
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from layerflow.settings.fields import settings_in
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.weights import LoadedWeights
from layers import BatchNormalization

log = logging.getLogger(__name__)
#: Epochs for a new head, where nothing else is said: it then no longer tears at the weights below it.
_HEAD_EPOCHS = 5
#: By how much the learning rate falls when more than the head learns.
_FALL = 0.1


class Phase(NamedTuple):
    """Consecutive epochs in which the same layers learn.

    Attributes:
        first: Number of its first epoch.
        config: The training, with the learning rate and the number of epochs of this phase.
        share: The last share of the backbone's layers that learns: 0 none, 1 all; nothing where there is no backbone,
            for a network whose weights are all new.
    """

    first: int
    config: TrainingConfig
    share: float | None


def phases_of(config: TrainingConfig, finetune: FinetuneConfig, weights: LoadedWeights | None) -> list[Phase]:
    """The phases of a training, in order; a network without given weights has one, in which everything learns."""
    if weights is None:
        return [Phase(1, config, None)]
    head = finetune.head_epochs
    if head is None:
        head = _HEAD_EPOCHS if weights.new else 0
    if finetune.share == 0 or head >= config.epochs:
        return [Phase(1, config, 0.0)]
    after = _with_rate(config, finetune.learning_rate).model_copy(update={"epochs": config.epochs - head})
    first = [Phase(1, config.model_copy(update={"epochs": head}), 0.0)] if head else []
    return [*first, Phase(head + 1, after, finetune.share)]


def phase_at(phases: list[Phase], epoch: int) -> Phase:
    """The phase that an epoch is in."""
    return next(phase for phase in reversed(phases) if phase.first <= epoch)


def freeze(network: keras.Model, phase: Phase) -> None:
    """Let only those layers learn that learn in ``phase``.

    Unfrozen, the layers of batch normalization still answer by the statistics that they came with: a few hundred
    images give worse ones.

    References:
        https://keras.io/guides/transfer_learning
    """
    if phase.share is None:
        return
    backbone = _layers_below_the_head(network)
    frozen = len(backbone) - math.ceil(phase.share * len(backbone))
    for number, layer in enumerate(backbone):
        is_normalization = isinstance(layer, keras.layers.BatchNormalization | BatchNormalization)
        layer.trainable = number >= frozen and not is_normalization
    learns = sum(layer.trainable for layer in backbone)
    log.info(
        "epoch %d and after: the head learns, and %d of the %d layers below it", phase.first, learns, len(backbone)
    )


def _layers_below_the_head(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers with weights, in the order in which they were made, without the last one."""
    return [layer for layer in _parts(network) if layer.weights][:-1]


def _parts(layer: Any) -> Iterator[Any]:
    """The innermost layers, and those with weights beside their inner layers'."""
    for inner in layer._layers:
        if inner._layers and not inner._trainable_variables:
            yield from _parts(inner)
        else:
            yield inner


def _with_rate(config: TrainingConfig, rate: float | None) -> TrainingConfig:
    """The training with another learning rate: of the optimizer, or at the beginning of its schedule."""
    changes: dict[str, Any] = {}
    before = config.learning_rate
    for field, name in (("optimizer", "learning_rate"), ("schedule", "initial_learning_rate")):
        form = getattr(config, field)
        if name in settings_in(form or ""):
            settings = settings_in(form)
            before = settings.pop(name)
            changes[field] = {**form, "config": settings}
    changes["learning_rate"] = rate or before * _FALL
    return config.model_copy(update=changes)
