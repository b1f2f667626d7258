"""Which training a checkpoint belongs to."""

import hashlib
import json

from layerflow import user_code
from layerflow.code_digest import code_digest
from layerflow.models.network_code import network_code
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig

#: What may change between two runs of one and the same training: how far it goes, how often it is saved, and whether
#: its images are resident, which changes no bit.
_NOT_THE_TRAINING = {"epochs", "patience", "checkpoint_seconds", "memory_budget"}


def fingerprint_of(
    config: TrainingConfig,
    model: ModelRef,
    data: DatasetRef,
    machine: DevicesConfig = DevicesConfig(),  # noqa: B008  (frozen)
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  (frozen)
    finetune: FinetuneConfig = FinetuneConfig(),  # noqa: B008  (frozen)
) -> str:
    """Digest of all that decides the weights after a number of epochs, but for the cores where no threads are set."""
    ignored = _NOT_THE_TRAINING - ({"epochs"} if config.schedule_stretches else set())
    settings = config.model_dump(mode="json", exclude=ignored)
    content = [
        settings,
        augment.model_dump(mode="json"),
        finetune.model_dump(mode="json"),
        machine.arithmetic,
        model.digest,
        data.digest,
        code_digest("layerflow.training.train"),
        network_code(model.name),
        *(user_code.package_digest(name, setting) for setting, name in config.own_code),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
