"""What the groups of settings have in common."""

import json
import sys
from typing import Any

from pydantic import BaseModel, ConfigDict


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
