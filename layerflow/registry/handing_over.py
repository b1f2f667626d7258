"""Taking a published version elsewhere, by the publishers of ``extend.publishers``."""

from layerflow import plugins
from layerflow.errors import RegistryError
from layerflow.extensions import Version
from layerflow.registry import versions
from layerflow.registry.ledger import read_ledger


def sums_of(name: str, version: int) -> str:
    """The SHA-256 of a version's list of digests, as the ledger has it."""
    published = read_ledger(name).published or {}
    return published[version].sums if version in published else ""


def hand(publisher: str, name: str, version: int) -> None:
    """Call the publisher with the version, whose every byte is as it was published.

    Raises:
        ConfigError: If the publisher can't be imported, or fails.
        DamagedError: If the version is not as it was published.
    """
    folder = versions.undamaged_folder_of(name, version)
    receipt = versions.receipt_of(name, version)
    if receipt is None:
        raise RegistryError(f"Version {version} of {name} must have a receipt. It has none that can be read.")
    call = plugins.load("publishers", publisher)
    with plugins.calling("publishers", publisher):
        call(Version(name, version, folder, receipt))
