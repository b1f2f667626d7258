"""The group ``checks``: what is looked for in the data before training."""

from typing import Literal

from pydantic import ConfigDict, Field

from layerflow.settings.fields import Group

Level = Literal["info", "warn", "stop"]


class ChecksConfig(Group):
    """What is looked for in the data before training: `info` notes a finding, `warn` logs it, `stop` ends the run."""

    model_config = ConfigDict(title="Data checks (advanced)")

    leakage: Level = Field("stop", description="More test images than `max_leakage` are in train or validation too.")
    max_leakage: float = Field(
        0.005, ge=0, le=1, description="Share of the test images that may be in train or validation too."
    )
    duplicates: Level = Field("info", description="Images that appear several times in one split.")
    conflicts: Level = Field("warn", description="The same image in several classes.")
    missing_class: Level = Field(
        "stop", description="A class without an image in one of the splits; in validation at most a warning."
    )
    small_class: Level = Field(
        "warn",
        description="A class with fewer than `min_class_images` in train or test, or fewer than "
        "`min_class_validation_images` in validation, which is only recorded.",
    )
    min_class_images: int = Field(
        10,
        ge=1,
        description="Fewest images of a class in train and in test; with 10, a recall has steps of 0.1.",
    )
    min_class_validation_images: int = Field(
        3, ge=1, description="Fewest images of a class in validation, which only chooses the best epoch."
    )
    imbalance: Level = Field(
        "warn", description="A class with more than `max_imbalance` times the training images of another."
    )
    max_imbalance: float = Field(
        10.0, ge=1, description="Highest ratio of training images between the largest and the smallest class."
    )
    left_out: Level = Field("warn", description="Files that were left out because they can't be read.")
    constant_images: Level = Field("warn", description="Images whose pixels all have the same value.")
    new_class: Level = Field("stop", description="A class that the live version does not know.")
    lost_class: Level = Field("stop", description="A class of the live version that the data no longer have.")
    class_drift: Level = Field(
        "warn", description="Class shares that differ from those of the live version by more than `max_psi`."
    )
    max_psi: float = Field(
        0.2, gt=0, description="Highest population stability index of the class shares; 0.2 is a common limit."
    )
    pixel_drift: Level = Field(
        "warn", description="Pixels or brightness that differ from the live version's by more than `max_distance`."
    )
    max_distance: float = Field(
        0.1, gt=0, le=1, description="Highest Jensen-Shannon distance of pixel values and of images' brightness."
    )
