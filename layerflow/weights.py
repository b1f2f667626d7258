"""What a network starts from, and what it was given of that. Imports neither TensorFlow nor Prefect."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class PresetFiles(BaseModel):
    """Which preset of KerasHub describes a network. It is known by its digest, wherever the files are.

    ``folder`` is where they are; nothing if they come from the network.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    folder: Path | None = Field(exclude=True)


class FirstWeights(BaseModel):
    """Which weights a network is to start from. They are known by their digest, wherever the file is.

    ``classes`` are those that the weights were trained for, as far as that is known. ``file`` is where they are;
    nothing if they come from the network, or if all weights are new. ``preset`` describes a network of KerasHub.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    # Left out of the keys of other networks.
    preset: PresetFiles | None = Field(None, exclude_if=lambda preset: preset is None)
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
