"""The group ``finetune``: how a network learns that starts from given weights."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from layerflow.settings.fields import Group


def _as_text(value: object) -> object:
    """Take the number that YAML makes of ``0.3``."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _known_share(value: str) -> str:
    try:
        is_known = value in ("none", "all") or 0 < float(value) < 1
    except ValueError:
        is_known = False
    if not is_known:
        raise ValueError("`none`, `all`, or a share of the backbone's layers between 0 and 1, such as 0.3")
    return value


class FinetuneConfig(Group):
    """How a network learns that starts from `model.weights`: first its head, then what is unfrozen."""

    model_config = ConfigDict(title="Fine-tuning")

    head_epochs: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="The first epochs, in which only the head learns. Default: 5 where `model.weights` leave it new, "
        "otherwise 0.",
    )
    unfreeze: Annotated[str, BeforeValidator(_as_text), AfterValidator(_known_share)] = Field(
        "all",
        max_length=20,
        description="What of the backbone learns after `head_epochs`: `none`, `all`, or the last share of its layers: "
        "`0.3`. Batch normalization keeps the statistics that it came with.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Learning rate after `head_epochs`. Default: a tenth of `training.learning_rate`.",
    )

    @property
    def share(self) -> float:
        """The share of the backbone's layers that learns after ``head_epochs``."""
        words = {"none": 0.0, "all": 1.0}
        return words[self.unfreeze] if self.unfreeze in words else float(self.unfreeze)
