"""What is known of the version in service."""

from layerflow.findings import Profile
from layerflow.records import DatasetRef
from layerflow.registry import versions
from layerflow.registry.handing_over import sums_of

__all__ = ["data_in_service", "sums_of"]


def data_in_service(name: str, data: DatasetRef) -> Profile | None:
    """What the data were like on which the model in service was trained, if there is one that was trained on others."""
    return versions.profile_in_service(name, data.digest)
