"""The live version of a model, loaded, and each one that takes its place."""

from layerflow.prediction.following import Follower
from layerflow.prediction.served_model import ServedModel
from layerflow.registry import sharing, versions


def follow_live(name: str) -> Follower:
    """Load the live version, of which every byte was checked; whoever calls ``follow`` keeps up with the registry.

    Raises:
        DamagedError: If it is not as it was published.
        UserError: If it has no signature ``image_bytes``.
    """

    def newest() -> int:
        sharing.refresh(name)
        return versions.numbers(versions.the_name(name))[0]

    def load(number: int) -> ServedModel:
        return ServedModel(name, number, versions.undamaged_folder_of(name, number))

    return Follower(newest, load)
