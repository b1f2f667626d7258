"""Which weights ``model.weights`` names: found at the start of a run, by content, and not read yet."""

import re
from pathlib import Path
from typing import Any

from layerflow import artifacts, checksums, store
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, RegistryError, printed
from layerflow.models.imagenet import place_of
from layerflow.models.published import SIZES, Published, published
from layerflow.records import TrainedRef
from layerflow.registry import sharing, versions
from layerflow.remote import mirror
from layerflow.settings.applications import MODULES, PREFIX
from layerflow.settings.model import VERSION
from layerflow.weights import FirstWeights


def first_weights(config: RetrainConfig, size: tuple[int, int]) -> FirstWeights | None:
    """The weights that the network of ``config`` is to start from; nothing if all are to be new.

    Args:
        config: ``champion`` is the version of its ``registry_name`` that is live now.
        size: Height and width of the images.

    Raises:
        ConfigError: If there is no such file.
        RegistryError: If there is no such version, or what it was exported from is gone or was changed.
    """
    weights = config.model.weights
    if weights == "none":
        return None
    if weights == "imagenet":
        return _imagenet(config, size)
    if weights == "champion":
        return _of_version(config.registry_name, _champion(config.registry_name))
    if named := re.fullmatch(VERSION, weights):
        return _of_version(named[1], int(named[2]))
    return _of_file(weights)


def check(config: RetrainConfig) -> str:
    """Where the weights will be taken from, as text.

    Raises:
        ConfigError, RegistryError: As ``first_weights`` does.
        MirrorError: If the mirror lacks the ImageNet weights.
        UnreachableError: If they must be downloaded and the network can't be reached.
    """
    is_imagenet, size = config.model.weights == "imagenet", config.data.size
    if is_imagenet and size is None and MODULES[_application(config)] in SIZES:
        return "a file for the size of the images, which data.image_size does not say"
    size = size or (224, 224)  # it makes no difference
    found = first_weights(config, size)
    if found is None:
        return "all new"
    return place_of(_published(config, size), found.file) if is_imagenet else f"{found.source}, in {found.file}"


def _imagenet(config: RetrainConfig, size: tuple[int, int]) -> FirstWeights:
    file, mirror = _published(config, size), config.data.mirror_folder
    copy = mirror.expanduser() / "keras" / file.name if mirror else None
    digest = file.digest
    if digest is None:  # of those that Keras does not check, what is in the mirror counts
        digest = checksums.sha256(copy) if copy and copy.is_file() else file.name
    return FirstWeights(digest=digest, source="imagenet", license=file.license, file=copy)


def _published(config: RetrainConfig, size: tuple[int, int]) -> Published:
    return published(_application(config), config.model.options or {}, size)


def _application(config: RetrainConfig) -> str:
    return config.model.name.removeprefix(PREFIX)


def _champion(name: str) -> int:
    sharing.refresh(name)
    if champion := next(iter(versions.numbers(name)), None):
        return champion
    raise RegistryError(
        f"model.weights champion must find a live version of {name}. None is published; publish the first one with "
        "--model.weights none."
    )


def _of_version(name: str, number: int) -> FirstWeights:
    """The trained network that a published version was exported from.

    Raises:
        RegistryError: If there is no such version, it was changed, or the network is no longer in the store.
    """
    sharing.refresh(name)
    versions.folder_of(name, number)
    if damage := versions.damage(name, number):
        raise RegistryError(f"Version {number} of {name} must be as it was published: {damage}; choose another.")
    receipt: dict[str, Any] = versions.receipt_of(name, number) or {}
    try:
        trained = receipt["trained"]
        mirror.bring(str(trained["folder"]))
        record = artifacts.check(store.path(trained["folder"]), TrainedRef)
        assert isinstance(record, TrainedRef)
        if record.digest != trained["digest"]:
            raise FileNotFoundError(record.folder)
    except (KeyError, TypeError, FileNotFoundError) as error:
        raise RegistryError(
            f"The network that version {number} of {name} was exported from must be in {store.root()}. It is not "
            "there; train it again, or set model.weights to a copy of its .keras file."
        ) from error
    loaded = (receipt.get("model") or {}).get("weights") or {}
    return FirstWeights(
        digest=record.digest,
        classes=tuple(receipt["data"]["classes"]),
        source=f"{name}@{number}",
        license=str(loaded.get("license", "unknown")),
        file=store.path(record.keras),
    )


def _of_file(place: str) -> FirstWeights:
    try:
        file = Path(place).expanduser().absolute()
        is_there = file.is_file()
    except (RuntimeError, OSError):  # a user who doesn't exist, a name that is too long
        is_there = False
    if not is_there:
        raise ConfigError(f"model.weights must name a file. {printed(place)} doesn't exist; correct the path.")
    return FirstWeights(digest=checksums.sha256(file), source=place, file=file)
