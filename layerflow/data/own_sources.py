"""Datasets of your own: modules that register builders of TensorFlow Datasets (TFDS)."""

import functools
import importlib.metadata

from layerflow.settings.data import DataConfig

_GROUP = "layerflow.sources"


def module_of(config: DataConfig) -> tuple[str, str] | None:
    """The module that registers the builder of ``data.name``, and what names it, for sentences.

    ``data.module`` names it, or an installed package does, by an entry point of the group ``layerflow.sources`` that
    has the dataset's name.
    """
    if config.module:
        return config.module, "data.module"
    name = config.name.partition(":")[0].partition("/")[0]
    module = _declared().get(name)
    return (module, f"the entry point {name} of {_GROUP}") if module else None


@functools.cache
def _declared() -> dict[str, str]:
    return {each.name: each.value.partition(":")[0].strip() for each in importlib.metadata.entry_points(group=_GROUP)}
