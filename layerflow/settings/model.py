"""The group ``model``: which network, and the settings that it takes."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from layerflow.errors import did_you_mean
from layerflow.settings.fields import Group, name_or_form, own_module

#: The networks, and the settings that each takes; their defaults are those of its constructor.
MODELS = {
    "mlp": ("hidden", "dropout", "shift", "flip"),
    "cnn": ("width", "dropout", "shift", "flip"),
    "resnet": ("width", "depth", "shift", "flip"),
    "vit": ("width", "depth", "heads", "patch_size", "dropout", "shift", "flip"),
}


def _known_model(name: str) -> str:
    if name not in MODELS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(
            f"a model named one of {', '.join(MODELS)}, or mypackage.mymodule:MyNet{did_you_mean(name, MODELS)}"
        )
    return own_module(name)


def _one_list(value: Any) -> Any:
    """Take ``[[128, 64]]`` and ``["128,64"]`` as ``[128, 64]``: so the command line hands over ``--model.hidden``."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str) and "," in value[0]:
        return value[0].split(",")
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


class ModelConfig(Group):
    """Which network, and the settings that it takes; those of other networks are refused."""

    model_config = ConfigDict(title="Model")

    name: Annotated[str, AfterValidator(_known_model)] = Field(
        "mlp",
        max_length=200,
        description="The network: `mlp`, `cnn`, `resnet`, `vit`, or your own: `mypackage.mymodule:MyNet`, a class of "
        "Keras models or a function that returns one.",
    )
    hidden: Annotated[tuple[PositiveInt, ...] | None, BeforeValidator(_one_list)] = Field(
        None, max_length=32, description="`mlp`: units of each hidden layer (64); empty makes it linear."
    )
    width: int | None = Field(
        None, ge=1, le=4096, description="`cnn` (32), `resnet` (16): filters of the first stage; `vit` (64): features."
    )
    depth: int | None = Field(None, ge=1, le=100, description="`resnet` (1): blocks a stage; `vit` (4): blocks.")
    heads: int | None = Field(None, ge=1, le=256, description="`vit` (4): attention heads, which must divide `width`.")
    patch_size: int | None = Field(
        None, ge=1, le=1024, description="`vit` (4): height and width of a patch, which must divide the images'."
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="`mlp` (0), `cnn` (0.5), `vit` (0.1): share of outputs dropped in training."
    )
    shift: int | None = Field(
        None, ge=0, le=1024, description="Most pixels by which training shifts images at random (0)."
    )
    flip: bool | None = Field(None, description="Whether training flips images horizontally at random (false).")

    options: Annotated[dict[str, Any] | None, BeforeValidator(name_or_form)] = Field(
        None, description="Your own network: its arguments besides `classes` and `image_shape`."
    )

    @model_validator(mode="after")
    def _takes_only_its_own(self) -> Self:
        known = MODELS.get(self.name, ("options",))
        for field in type(self).model_fields:
            if field != "name" and field not in known and getattr(self, field) is not None:
                raise ValueError(f"settings of {self.name}, which are {', '.join(known)}; {field} is not one of them")
        if self.heads and self.width and self.width % self.heads:
            raise ValueError(f"heads that divide width; {self.heads} does not divide {self.width}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What the network is made with; where a setting is not given, its constructor has the default."""
        if self.name not in MODELS:
            return self.options or {}
        given = {field: getattr(self, field) for field in MODELS[self.name]}
        return {field: value for field, value in given.items() if value is not None}
