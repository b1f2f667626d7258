"""What decides the data that a config names, as far as it can be told without reading them."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from layerflow import user_code
from layerflow.data import image_folder
from layerflow.data.own_sources import module_of
from layerflow.settings.data import DataConfig


def key_content(config: DataConfig, listing: image_folder.Listing | None = None) -> dict[str, Any]:
    """The settings, and what they name: a folder's content, a module's code, the files of a prepared dataset.

    Where the raw files of a dataset come from does not change what they are, and where a folder lies neither. A CSV
    file of slices counts by what it says of each image.

    Args:
        listing: What is in the folder, where that is known.

    Raises:
        DatasetError: If the folder is not laid out as it must be, or the CSV file of slices is not what it must be.
        ConfigError: If there is no such module.
    """
    settings = config.model_dump(mode="json", exclude={"mirror", "path", "data_dir"})
    if config.path:
        listing = listing or image_folder.scan(config.path, config.slices_file)
        slices = _digest_of_slices(listing) if listing.columns else None
        return {**settings, "title": config.title, "images": listing.digest, "slices": slices}
    code = user_code.package_digest(*own) if (own := module_of(config)) else None
    return {**settings, "module's code": code, "prepared": _prepared(config) if config.data_dir else None}


def _digest_of_slices(listing: image_folder.Listing) -> str:
    """By the images in their order, for names do not count in the digest of a folder: two may have changed places."""
    content = [listing.columns, [file.slices for file in listing.files]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _prepared(config: DataConfig) -> list[Any]:
    """Path, size and time of each file of a prepared dataset: whoever prepares it may write it anew."""
    from etils import epath  # knows the paths of buckets as TFDS does; only where it is needed, for it takes a while

    home = epath.Path(config.data_dir).expanduser() / config.name.partition(":")[0]
    found = sorted(_files_below(home)) if home.exists() else []
    return [[str(file), (status := file.stat()).length, status.mtime] for file in found]


def _files_below(folder: Any) -> Iterator[Any]:
    for each in folder.iterdir():
        yield from _files_below(each) if each.is_dir() else [each]
