"""What you add to the steps of a run."""

from layerflow import plugins
from layerflow.settings.extend import ExtendConfig


def extensions_of(config: ExtendConfig) -> dict[str, dict[str, str]]:
    """By kind, the digest of the code of each extension, which are imported: hours before they are needed.

    Raises:
        ConfigError: If one can't be had.
    """
    chosen: dict[str, tuple[str, ...]] = config.model_dump()
    for kind, names in chosen.items():
        for name in names:
            plugins.load(kind, name)
    return {kind: plugins.digests(kind, names) for kind, names in chosen.items()}
