"""A preset of KerasHub: a folder of files that describe a network, read as data.

KerasHub itself makes whatever classes ``config.json`` names. Here, nothing in a file is imported or called: what comes
out is the name of a class, which `layerflow.models.hub` looks up among those that it knows, and numbers and words.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from layerflow.errors import ConfigError, MirrorError, printed

#: The files of a preset: of the network, of its preprocessing (either will do), and of its weights.
NETWORK, PREPROCESSING, WEIGHTS = "config.json", ("image_converter.json", "preprocessor.json"), "model.weights.h5"
#: Bounds of what a file may say. The largest of KerasHub's image networks have 2,000 numbers below 20,000 in 20 kB.
_MOST_BYTES, _MOST_VALUES, _MOST_NUMBER, _MOST_TEXT = 2**20, 10_000, 2**17, 100
#: What Keras says of every layer, and what is decided here: names are counted up, and training sets the precision.
_OF_ANY_LAYER = {"name", "trainable", "dtype"}


class Preset(NamedTuple):
    """What a preset says of its network.

    Attributes:
        backbone: Name of the class in ``keras_hub.models``, such as ``ResNetBackbone``.
        settings: What the class is called with: numbers, words, and lists of them.
        scale: By what a pixel is multiplied, in all channels or in each; nothing if it is not.
        offset: What is then added.
    """

    backbone: str
    settings: dict[str, Any]
    scale: float | list[float] | None
    offset: float | list[float] | None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, however the files are written."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()


def read_preset(folder: Path) -> Preset:
    """Read the files of a preset but for its weights.

    Raises:
        ConfigError: If one is damaged, or says something else than the files of an image network do.
        MirrorError: If one is missing.
    """
    file = folder / NETWORK
    content = _json(file)
    settings = content.get("config")
    name = content.get("class_name")
    if not (isinstance(name, str) and name.isidentifier() and isinstance(settings, dict)):
        _refuse(file, "it describes no class of KerasHub")
    if content.get("registered_name") != f"keras_hub>{name}":
        _refuse(file, f"its class {printed(str(content.get('registered_name')))} is not one of KerasHub")
    plain = _plain(file, {key: value for key, value in settings.items() if key not in _OF_ANY_LAYER})
    return Preset(name, plain, *_conversion(folder))


def require(file: Path) -> None:
    """Ensure that a preset has a file.

    Raises:
        MirrorError: If not.
    """
    if not file.is_file():
        raise MirrorError(
            f"The mirror must hold {printed(str(file))}, which is not there; copy the whole preset into that folder."
        )


def _conversion(folder: Path) -> tuple[float | list[float] | None, float | list[float] | None]:
    """Scale and offset of the pixels."""
    file = next((folder / name for name in PREPROCESSING if (folder / name).is_file()), None)
    if file is None:
        raise MirrorError(
            f"A preset of images must hold {' or '.join(PREPROCESSING)}, which says how they are scaled. "
            f"{printed(str(folder))} holds neither; copy the whole preset there, or choose one of an image network."
        )
    settings = _json(file).get("config")
    if file.name == PREPROCESSING[1] and isinstance(settings, dict):
        converter = settings.get("image_converter")
        settings = converter.get("config") if isinstance(converter, dict) else None
    if not isinstance(settings, dict):
        _refuse(file, "it doesn't say how images are scaled")
    scale, offset = (_numbers(file, settings.get(name)) for name in ("scale", "offset"))
    mean, variance = (_numbers(file, settings.get(name)) for name in ("mean", "variance"))
    if isinstance(mean, list) and isinstance(variance, list) and len(mean) == len(variance):
        # What the files of earlier versions say instead.
        if not (isinstance(scale, float) and min(variance) > 0):
            _refuse(file, "its scale must be a number, and its variance positive")
        deviations = [math.sqrt(each) for each in variance]
        pairs = zip(mean, deviations, strict=True)
        return [scale / each for each in deviations], [-centre / each for centre, each in pairs]
    return scale, offset


def _numbers(file: Path, value: Any) -> float | list[float] | None:
    """A number, or one for each channel."""
    value = _plain(file, value)
    if value is None or _is_number(value):
        return None if value is None else float(value)
    if not (isinstance(value, list) and len(value) in (1, 3) and all(map(_is_number, value))):
        _refuse(file, f"{printed(str(value))} is no number for each channel")
    return [float(each) for each in value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(file: Path) -> dict[str, Any]:
    require(file)
    with file.open("rb") as stream:
        text = stream.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        _refuse(file, "it is larger than any of KerasHub")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(file, printed(" ".join(str(error).split())), error)
    if not isinstance(content, dict):
        _refuse(file, "it holds no object")
    return content


def _plain(file: Path, value: Any) -> Any:
    """The same value, of numbers, words, lists, and names of settings alone. Keras writes a tuple as an object."""
    left = _MOST_VALUES

    def plain(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            _refuse(file, "it has more settings than any network")
        if isinstance(value, dict) and value.get("class_name") == "__tuple__":
            value = value.get("items")
        if isinstance(value, list):
            return [plain(each) for each in value]
        is_text = isinstance(value, str) and len(value) <= _MOST_TEXT
        if value is None or isinstance(value, bool) or is_text or (_is_number(value) and abs(value) <= _MOST_NUMBER):
            return value
        _refuse(file, f"{printed(str(value))} is no setting of an image network")

    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return plain(value)


def _refuse(file: Path, reason: str, error: Exception | None = None) -> NoReturn:
    raise ConfigError(
        f"{printed(str(file))} must be as KerasHub writes it for a network of images. It can't be used ({reason}); "
        "choose another preset, or copy it again."
    ) from error
