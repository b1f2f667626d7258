"""What the checks of the data say: figures to compare with, and findings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Profile(BaseModel):
    """Figures of the data by which a later run tells whether they changed. Shares are of the training images."""

    model_config = ConfigDict(frozen=True)

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    pixels: tuple[float, ...]
    brightness: tuple[float, ...]
    lowest: int
    highest: int
    mean: float
    deviation: float


class Finding(BaseModel):
    """Something that the checks found; ``check`` is its name in the config."""

    model_config = ConfigDict(frozen=True)

    check: str
    level: Literal["info", "warn", "stop"]
    text: str
