"""What you add to the steps of a run."""

from layerflow import plugins
from layerflow.settings.extend import ExtendConfig


def extensions_of(config: ExtendConfig) -> dict[str, dict[str, str]]:
    """By kind, the digest of the code of each extension. All are imported, hours before they are needed.

    Raises:
        ConfigError: If one can't be had, or an exporter has no name for its file.
    """
    from layerflow.export.own_formats import file_of

    chosen: dict[str, tuple[str, ...]] = config.model_dump()
    for kind, names in chosen.items():
        for name in names:
            plugins.load(kind, name)
    for name in config.exporters:
        file_of(name)
    return {kind: plugins.digests(kind, names) for kind, names in chosen.items()}
