"""What a collection of garbage found and removed. Imports neither TensorFlow nor Prefect."""

from pydantic import BaseModel, ConfigDict


class Bytes(BaseModel):
    """A part of the store: how many things are in it and their bytes, and how much of it went."""

    model_config = ConfigDict(frozen=True)

    name: str
    items: int = 0
    bytes: int = 0
    removed: int = 0
    freed: int = 0


class Collected(BaseModel):
    """What was in the store, and what went; with ``dry_run``, what would go.

    ``kinds`` divides the store by its folders, ``ages`` what can go by its last use, and ``models`` what is needed by
    the models that need it: several can need the same. ``max_bytes`` is the size that the store should have.
    """

    model_config = ConfigDict(frozen=True)

    kinds: tuple[Bytes, ...]
    ages: tuple[Bytes, ...]
    models: tuple[Bytes, ...]
    max_bytes: int
    dry_run: bool

    @property
    def bytes(self) -> int:
        """The size of the store, before."""
        return sum(each.bytes for each in self.kinds)

    @property
    def items(self) -> int:
        """How many things there were, before."""
        return sum(each.items for each in self.kinds)

    @property
    def removed(self) -> int:
        """How many things went."""
        return sum(each.removed for each in self.kinds)

    @property
    def freed(self) -> int:
        """How many bytes went."""
        return sum(each.freed for each in self.kinds)
