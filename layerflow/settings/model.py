"""The group ``model``: which network, and the settings that it takes."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from layerflow.errors import did_you_mean, shown
from layerflow.settings.applications import ALPHAS, MODULES, OPTIONS, PREFIX, is_application
from layerflow.settings.fields import Group, name_or_form, own_module
from layerflow.settings.hub import is_hub, require_preset

#: The networks, and the settings that each takes; their defaults are those of its constructor.
MODELS = {
    "mlp": ("hidden", "dropout", "shift", "flip"),
    "cnn": ("width", "dropout", "shift", "flip"),
    "resnet": ("width", "depth", "shift", "flip"),
    "vit": ("width", "depth", "heads", "patch_size", "dropout", "shift", "flip"),
}
#: What a network of ``keras.applications`` takes, one of KerasHub, and a custom one.
_APPLICATION, _HUB, _OWN = ("dropout", "options"), ("dropout",), ("options",)
#: A published version, such as ``cnn-pets@3``.
VERSION = r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})@([1-9]\d{0,17})"


def fields_of(name: str) -> tuple[str, ...]:
    """The settings that the network ``name`` takes."""
    if is_application(name):
        return _APPLICATION
    return _HUB if is_hub(name) else MODELS.get(name, _OWN)


def is_made_by_name(name: str) -> bool:
    """Whether layerflow has the class of the network ``name``; all others are a user's."""
    return name in MODELS or is_application(name) or is_hub(name)


def _known_model(name: str) -> str:
    if is_hub(name):
        require_preset(name)
        return name
    if name not in MODELS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(
            f"a model named one of {', '.join(MODELS)}, applications:MobileNetV3Small, hub:resnet_18_imagenet, or "
            f"mypackage.mymodule:MyNet{did_you_mean(name, MODELS)}"
        )
    if is_application(name) and (network := name.removeprefix(PREFIX)) not in MODULES:
        near = did_you_mean(network, MODULES)
        raise ValueError(f"a network of keras.applications after `{PREFIX}`, such as MobileNetV3Small{near}")
    return own_module(name)


def _known_weights(weights: str) -> str:
    words = ("none", "imagenet", "preset", "champion")
    if weights in words or re.fullmatch(VERSION, weights):
        return weights
    if not weights.endswith((".keras", ".h5")):
        raise ValueError(
            f"{', '.join(words)}, a published version such as cnn-pets@3, or the path of a .keras or .weights.h5 file"
            f"{did_you_mean(weights, words)}"
        )
    if not weights.isprintable():
        raise ValueError("a path of printable characters")
    return weights


#: Bounds of the options of networks of ``keras.applications``.
_MOST_ALPHA, _MOST_MULTIPLIER = 10, 16


def _require_options(name: str, options: dict[str, Any], imagenet: bool) -> None:
    """Ensure that a network of ``keras.applications`` takes the options, and has ImageNet weights if they are wanted.

    Raises:
        ValueError: If not. Its sentence follows the name of the setting.
    """
    network = name.removeprefix(PREFIX)
    module = MODULES[network]
    known = OPTIONS.get(module, ())
    for option, value in options.items():
        if option not in known:
            takes = f"options of {network}, which are {', '.join(known)}" if known else f"no options for {network}"
            raise ValueError(f"{takes}; {option} is not one of them" if known else f"{takes}; {option} is one")
        if problem := _problem(option, value):
            raise ValueError(f"{problem}, not {shown(value)}")
    if imagenet:
        _require_imagenet(module, network, options)


def _problem(option: str, value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if option == "alpha" and not (is_number and 0 < value <= _MOST_ALPHA):
        return f"an alpha above 0 and at most {_MOST_ALPHA}"
    if option == "depth_multiplier" and not (type(value) is int and 1 <= value <= _MOST_MULTIPLIER):
        return f"a whole depth_multiplier from 1 to {_MOST_MULTIPLIER}"
    if option == "minimalistic" and not isinstance(value, bool):
        return "minimalistic to be true or false"
    return None


def _require_imagenet(module: str, network: str, options: dict[str, Any]) -> None:
    alphas = (1.0,) if options.get("minimalistic") else ALPHAS.get(module, ())
    if alphas and (alpha := options.get("alpha", 1.0)) not in alphas:
        raise ValueError(
            f"an alpha of {', '.join(map(str, alphas))} for the ImageNet weights of {network}, not {alpha}"
        )
    if options.get("depth_multiplier", 1) != 1:
        raise ValueError(f"a depth_multiplier of 1 for the ImageNet weights of {network}")


def _require_weights(name: str, weights: str) -> None:
    if weights == "imagenet" and is_hub(name):
        raise ValueError(f"weights preset for {name}, which are those that the preset brings, not imagenet")
    if weights == "imagenet" and not is_application(name):
        raise ValueError(
            "weights imagenet with a network of keras.applications, such as applications:MobileNetV3Small; "
            f"{name} has none"
        )
    if weights == "preset" and not is_hub(name):
        raise ValueError(f"weights preset with a network of KerasHub, such as hub:resnet_18_imagenet; {name} has none")


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
        description="The network: `mlp`, `cnn`, `resnet`, `vit`; one of keras.applications: "
        "`applications:MobileNetV3Small`; a preset of KerasHub: `hub:resnet_18_imagenet`; or your own: "
        "`mypackage.mymodule:MyNet`, a class of Keras models or a function that returns one.",
    )
    weights: Annotated[str, AfterValidator(_known_weights)] = Field(
        "none",
        max_length=1000,
        description="The weights to start from: `none`, new ones; `imagenet`, for a network of keras.applications; "
        "`preset`, those that a preset of KerasHub brings; `champion`, those of the live version; those of a published "
        "version, `cnn-pets@3`; or a `.keras` or `.weights.h5` file.",
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
        None,
        ge=0,
        lt=1,
        description="`mlp` (0), `cnn` (0.5), `vit` (0.1), `applications:` and `hub:` (0.2): share of outputs dropped "
        "in training.",
    )
    shift: int | None = Field(
        None, ge=0, le=1024, description="Most pixels by which training shifts images at random (0)."
    )
    flip: bool | None = Field(None, description="Whether training flips images horizontally at random (false).")

    options: Annotated[dict[str, Any] | None, BeforeValidator(name_or_form)] = Field(
        None,
        description="Your own network: its arguments besides `classes` and `image_shape`. `applications:`: those of "
        "its function that change the network, such as `alpha`.",
    )

    @model_validator(mode="after")
    def _takes_only_its_own(self) -> Self:
        known = fields_of(self.name)
        for field in type(self).model_fields:
            if field not in ("name", "weights", *known) and getattr(self, field) is not None:
                raise ValueError(f"settings of {self.name}, which are {', '.join(known)}; {field} is not one of them")
        if is_application(self.name):
            _require_options(self.name, self.options or {}, self.weights == "imagenet")
        _require_weights(self.name, self.weights)
        if self.heads and self.width and self.width % self.heads:
            raise ValueError(f"heads that divide width; {self.heads} does not divide {self.width}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What the network is made with; where a setting is not given, its constructor has the default."""
        if not is_made_by_name(self.name):
            return self.options or {}
        given = {field: getattr(self, field) for field in fields_of(self.name)}
        return {field: value for field, value in given.items() if value is not None}
