"""The group ``export``: what a published model does with its logits."""

import math
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from layerflow.errors import ConfigError
from layerflow.settings.fields import Group, name_or_forms

#: In what a model can be published.
Format = Literal["saved_model", "litert", "litert_int8", "onnx"]


class AbstainConfig(Group):
    """When a published model says that its answer should not be relied on."""

    model_config = ConfigDict(title="Abstention")

    error: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Highest probability that an answer is accepted and wrong: `0.01`. The model then also gives "
        "`accepted`, by a threshold that the validation images choose. Default: no threshold.",
    )

    def require_enough(self, images: int) -> None:
        """Check that a threshold can be chosen on so many validation images.

        Raises:
            ConfigError: If they are too few to show that even one answer is wrong so rarely.
        """
        if self.error is not None and self.most_wrong(images) < 0:
            needed = math.ceil(1 / self._exact) - 1
            raise ConfigError(
                f"export.abstain.error {self.error} needs at least {needed:,} validation images. There are {images:,}; "
                "raise data.validation_fraction or export.abstain.error."
            )

    def most_wrong(self, images: int) -> int:
        """How many of so many validation images may be accepted and wrong: the most with which conformal risk control
        keeps ``(wrong + 1) / (images + 1)`` at or below ``error``; negative if they are too few.
        """
        return int(self._exact * (images + 1)) - 1

    @property
    def _exact(self) -> Fraction:
        """The error as it was written: 0.29 of 100 images are 29, and 28.999999999999996 in floats."""
        return Fraction(str(self.error))


class ExportConfig(Group):
    """What a published model does with its logits."""

    model_config = ConfigDict(title="Export")

    calibrate: Literal["none", "temperature"] = Field(
        "none",
        description="`temperature`: divide the logits by one number, fitted on the validation images, so that the "
        "probabilities are as high as the answers are right. `class_id` stays the same.",
    )
    abstain: AbstainConfig = Field(
        AbstainConfig(), description="When the model says that its answer should not be relied on."
    )
    formats: Annotated[tuple[Format, ...], BeforeValidator(name_or_forms)] = Field(
        ("saved_model",),
        description="What is published beside the SavedModel, which always is: `litert`, `litert_int8` (integers of "
        "8 bits), `onnx`. Each is proved by its own runtime.",
    )
    required: bool = Field(
        False,
        description="Whether a format that can't be made or proved keeps the model from being published. Otherwise, "
        "only the format is left out.",
    )

    @property
    def converted(self) -> tuple[Format, ...]:
        """The formats that the SavedModel is converted to, each once, in order of name."""
        return tuple(sorted({*self.formats} - {"saved_model"}))
