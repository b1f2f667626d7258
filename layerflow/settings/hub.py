"""The networks of KerasHub: their names, known without importing KerasHub."""

import re

#: How ``model.name`` begins where it names a preset of KerasHub.
PREFIX = "hub:"
#: A preset's name, which is also that of its folder in the mirror.
_PRESET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_hub(name: str) -> bool:
    """Whether ``model.name`` names a preset of KerasHub."""
    return name.startswith(PREFIX)


def preset_of(name: str) -> str:
    """The preset that ``model.name`` names."""
    return name.removeprefix(PREFIX)


def require_preset(name: str) -> None:
    """Ensure that ``hub:`` is followed by the name of a preset.

    Raises:
        ValueError: If not. Its sentence follows the name of the setting.
    """
    if not _PRESET.fullmatch(preset_of(name)):
        raise ValueError(
            f"the name of a preset of KerasHub after `{PREFIX}`, of at most 100 letters, digits, `.`, `_` and `-`, "
            "such as resnet_18_imagenet"
        )
