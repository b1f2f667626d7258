"""What a run makes, as assets of Prefect: a dataset, a trained model, and a published one, each made of the one before.

A task says so while it runs, and Prefect emits the events once it has ended. A `Cached` step does not run, so there
is no event of it.
"""

from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext

from layerflow.config import RetrainConfig
from layerflow.outcomes import Promotion, RolledBack
from layerflow.records import DatasetRef, TrainedRef
from tasks.cards import settings_of_run

#: What an event tells of a publication.
_PUBLISHED = {"version", "code", "reason", "accuracy", "test_examples", "receipt"}


def _dataset(config: RetrainConfig) -> Asset:
    return _asset("datasets", config.data.title, "A dataset, prepared by layerflow")


def _trained(name: str) -> Asset:
    return _asset("trained", name, "A trained model, before it is proved")


def _published(name: str) -> Asset:
    return _asset("models", name, "A published model: each event is of a version")


def _asset(kind: str, name: str, description: str) -> Asset:
    """An asset of a name that can be part of an address, as ``data.title`` and ``registry_name`` are."""
    properties = AssetProperties(name=name, description=description)
    return Asset(key=f"layerflow://{kind}/{name}", properties=properties)


def loaded(data: DatasetRef) -> None:
    """The task that runs has prepared a dataset."""
    if config := settings_of_run():
        details = {"digest": data.digest, "version": data.version, "classes": len(data.classes), "images": data.counts}
        _made(_dataset(config), details)


def trained(model: TrainedRef) -> None:
    """The task that runs has trained a model, on the dataset of its run."""
    if config := settings_of_run():
        best = next((epoch for epoch in model.history if epoch.epoch == model.best_epoch), None)
        details = {
            "digest": model.digest,
            "network": model.model,
            "epochs": model.epochs,
            "val_accuracy": best and best.val_accuracy,
        }
        _made(_trained(config.registry_name), details, _dataset(config))


def published(made: Promotion) -> None:
    """The task that runs has published a version."""
    _made(_published(made.name), made.model_dump(mode="json", include=_PUBLISHED), _trained(made.name))


def restored(done: RolledBack) -> None:
    """The task that runs has published an earlier version again."""
    details = {"version": done.version, "code": "rolled_back", "restored": done.restored}
    _made(_published(done.name), details)


def _made(asset: Asset, details: dict[str, Any], *made_of: Asset) -> None:
    context = AssetContext.get()
    if context is None:  # called without Prefect
        return
    context.downstream_assets.add(asset)
    context.direct_asset_dependencies.update(made_of)
    context.add_asset_metadata(asset.key, details)
