"""What a published model does with its logits, and what that was worth on the test images."""

from pydantic import BaseModel, ConfigDict, Field


class Serving(BaseModel):
    """What is done with a network's logits in service, in ``float32``.

    The probabilities are ``softmax(logits / temperature)``. Where there is a ``threshold``, an answer is accepted if
    its largest probability is at least that; above 1 none is.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    threshold: float | None = Field(None, ge=0, allow_inf_nan=False)


class Calibrated(BaseModel):
    """Expected calibration error and log loss, in nats, of the test images before and after the temperature.

    ``images`` is the number of validation images on which it was fitted.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float


class Abstention(BaseModel):
    """What the threshold did on the test images.

    ``coverage`` is the share that is accepted, ``error`` that of the accepted ones that is wrong (0 if none is
    accepted), ``wrong`` the share of all that is accepted and wrong. At most ``asked`` of them was to be, by the
    ``images`` validation images that chose the threshold.
    """

    model_config = ConfigDict(frozen=True)

    asked: float
    images: int
    coverage: float
    error: float
    wrong: float
