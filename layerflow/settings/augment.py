"""The group ``augment``: what training does to its images at random."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from layerflow.errors import did_you_mean
from layerflow.settings.fields import Group, KerasForm, class_named, name_or_forms

#: Keras' own layers for images, by name. Listed, since asking Keras takes seconds, and a typo must not wait for them.
LAYERS = (
    *("AugMix", "AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix"),
    *("Equalization", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue"),
    *("RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Resizing", "Solarization"),
)


def _known(value: str | dict[str, Any]) -> str | dict[str, Any]:
    name, names = class_named(value).lower(), [each.lower() for each in LAYERS]
    if name not in names:
        raise ValueError(
            f"the name of a Keras layer for images, such as RandomFlip, or its form with `class_name`"
            f"{did_you_mean(name, names)}"
        )
    return value


class AugmentConfig(Group):
    """What training does to its images at random; never part of what ships."""

    model_config = ConfigDict(title="Augment")

    layers: Annotated[
        tuple[Annotated[KerasForm, AfterValidator(_known)], ...], BeforeValidator(name_or_forms), Field(max_length=32)
    ] = Field(
        (),
        description="Keras layers that change the training images at random, one after the other: by name "
        '(`RandomFlip`) or in Keras\' form (`{"class_name": "RandomRotation", "config": {"factor": 0.05}}`); `MixUp` '
        "and `CutMix` mix the labels too.",
    )
