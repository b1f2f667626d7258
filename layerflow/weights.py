"""What a network starts from, and what it was given of that. Imports neither TensorFlow nor Prefect."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class FirstWeights(BaseModel):
    """Which weights a network is to start from. They are known by their digest, wherever the file is.

    ``classes`` are those that the weights were trained for, as far as that is known. ``file`` is where they are;
    nothing if they are ImageNet's, and Keras fetches them from the network.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    classes: tuple[str, ...] | None = None
    source: str = Field(exclude=True)
    license: str = Field("unknown", exclude=True)
    file: Path | None = Field(None, exclude=True)


class LoadedWeights(BaseModel):
    """What a network was given of a file of weights, counted in layers; the first of those left out are named."""

    model_config = ConfigDict(frozen=True)

    source: str
    file: str
    sha256: str
    license: str
    loaded: int
    parameters: int
    skipped: int
    new: int
    skipped_layers: tuple[str, ...]
    new_layers: tuple[str, ...]
