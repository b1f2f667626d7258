"""Which weights ``model.weights`` names: found at the start of a run, by content, and not read yet."""

import re
from pathlib import Path
from typing import Any

from layerflow import artifacts, checksums, store
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, RegistryError, printed
from layerflow.models import hub_files
from layerflow.models.imagenet import place_of
from layerflow.models.preset import WEIGHTS, read_preset
from layerflow.models.published import SIZES, Published, published
from layerflow.records import TrainedRef
from layerflow.registry import sharing, versions
from layerflow.remote import mirror
from layerflow.settings.applications import MODULES, PREFIX
from layerflow.settings.hub import is_hub
from layerflow.settings.model import VERSION
from layerflow.weights import FirstWeights, PresetFiles


def first_weights(config: RetrainConfig, size: tuple[int, int]) -> FirstWeights | None:
    """The weights that the network of ``config`` is to start from; nothing if all are to be new.

    For a network of KerasHub, the answer also says which preset describes it, even if all weights are to be new.

    Args:
        config: ``champion`` is the version of its ``registry_name`` that is live now.
        size: Height and width of the images.

    Raises:
        ConfigError: If there is no such file.
        RegistryError: If there is no such version, or what it was exported from is gone or was changed.
        MirrorError: If the mirror lacks the preset.
    """
    if not is_hub(config.model.name):
        return _weights(config, size)
    preset = _preset(config)
    if config.model.weights == "none":
        return FirstWeights(digest="none", source="none", preset=preset)
    if config.model.weights == "preset":
        return _of_preset(config.model.name, preset)
    found = _weights(config, size)
    assert found
    return found.model_copy(update={"preset": preset})


def _weights(config: RetrainConfig, size: tuple[int, int]) -> FirstWeights | None:
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
        MirrorError: If the mirror lacks the ImageNet weights, or files of the preset.
        UnreachableError: If they must be downloaded and the network can't be reached.
    """
    if is_hub(config.model.name):
        return _check_hub(config)
    is_imagenet, size = config.model.weights == "imagenet", config.data.size
    if is_imagenet and size is None and MODULES[_application(config)] in SIZES:
        return "a file for the size of the images, which data.image_size does not say"
    size = size or (224, 224)  # it makes no difference
    found = first_weights(config, size)
    if found is None:
        return "all new"
    return place_of(_published(config, size), found.file) if is_imagenet else f"{found.source}, in {found.file}"


def _check_hub(config: RetrainConfig) -> str:
    name, weights = config.model.name, config.model.weights
    folder = hub_files.folder_in(config.data.mirror_folder, name)
    place = f"the preset from {hub_files.place_of(name, folder, weights == 'preset')}"
    if weights in ("none", "preset"):
        return place if weights == "preset" else f"all new; {place}"
    found = _weights(config, (0, 0))  # it makes no difference
    assert found
    return f"{found.source}, in {found.file}; {place}"


def _preset(config: RetrainConfig) -> PresetFiles:
    folder = hub_files.folder_in(config.data.mirror_folder, config.model.name)
    digest = read_preset(folder).digest if folder else hub_files.handle_of(config.model.name)
    return PresetFiles(digest=digest, folder=folder)


def _of_preset(name: str, preset: PresetFiles) -> FirstWeights:
    """What is in the mirror counts by its content; a version of a preset on Kaggle never changes."""
    if preset.folder is None:
        return FirstWeights(digest=preset.digest, source=name, preset=preset)
    file = hub_files.fetch(name, preset.folder, with_weights=True) / WEIGHTS
    return FirstWeights(digest=checksums.sha256(file), source=name, file=file, preset=preset)


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
