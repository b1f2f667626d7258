"""What the groups of settings have in common."""

import json
import sys
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

#: What Keras writes when it serialises an object.
_FORM = {"class_name", "config", "module", "registered_name", "build_config"}


def own_module(name: str) -> str:
    """Refuse Python's own modules: `os:system` with options is a command that a form in the UI would run."""
    if name.partition(":")[0].partition(".")[0] in {*sys.stdlib_module_names, "__main__"}:
        raise ValueError("a module of your own; it is one of Python's")
    return name


def name_or_form(value: Any) -> Any:
    """Take a JSON object in text as the object: that is how the command line can give one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a name or a JSON object ({error})") from error
    return value


def name_or_forms(value: Any) -> Any:
    """Take one name or form, or a JSON list of them in text, as a list: so the command line hands them over."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a list of names and JSON objects ({error})") from error
    return [value] if isinstance(value, str | dict) else value


#: A Keras class by name, or Keras' own serialised form of one.
KerasForm = Annotated[str | dict[str, Any], BeforeValidator(name_or_form)]


def class_named(value: str | dict[str, Any]) -> str:
    """The class that a name or a Keras form names, in the case in which it was given; empty if it names none.

    Raises:
        ValueError: If a mapping has keys that no Keras form has.
    """
    if isinstance(value, str):
        return value
    if unknown := sorted(map(str, value.keys() - _FORM)):
        raise ValueError(f"a form with `class_name` and `config`, and without {unknown[0]!a}")
    if not isinstance(value.get("config") or {}, dict):
        raise ValueError("a mapping under `config`, such as {clipnorm: 1.0}")
    name = value.get("class_name")
    return name if isinstance(name, str) else ""


def settings_in(value: str | dict[str, Any]) -> dict[str, Any]:
    """The arguments that a Keras form gives its class."""
    return dict(value.get("config") or {}) if isinstance(value, dict) else {}


#: How the bounds of a number are said.
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Say a field's bounds in its description, for `--help` and the form in the UI show nothing else.

        A field's title there is its name as words, as in a flag: the form and the command line must be told together.
        """
        for name, field in cls.model_fields.items():
            field.title = field.title or name.replace("_", " ").capitalize()
            limits = {
                bound: getattr(limit, bound) for limit in field.metadata for bound in _LIMITS if hasattr(limit, bound)
            }
            if limits and field.description:
                said = ", ".join(f"{_LIMITS[bound]} {value:,}" for bound, value in limits.items())
                field.description = f"{field.description.removesuffix('.')}; {said}."
        cls.model_rebuild(force=True)
