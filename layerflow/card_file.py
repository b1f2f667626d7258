"""What only a person can say of a model: the file from which the model card of a version takes it."""

import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from layerflow import yaml_file
from layerflow.errors import ConfigError, config_sentence, did_you_mean, printed

#: Where it is looked for if nothing else is said.
DEFAULT = Path("card.yaml")


def _without_controls(text: str) -> str:
    """Refuse what steers terminals."""
    if any(unicodedata.category(letter) == "Cc" and letter not in "\n\r\t" for letter in text):
        raise ValueError("text without control characters")
    return text


_Text = Annotated[str, Field(max_length=10_000), AfterValidator(_without_controls)]  # about two pages
_Line = Annotated[str, Field(max_length=500), AfterValidator(_without_controls)]


class CardFile(BaseModel):
    """The fields of the file, each of which may be missing."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    intended_use: _Text | None = None
    out_of_scope_use: _Text | None = None
    limitations: _Text | None = None
    ethical_considerations: _Text | None = None
    license: _Line | None = None
    authors: Annotated[list[_Line], Field(max_length=100)] | None = None
    contact: _Line | None = None


def read(file: Path | None) -> CardFile | None:
    """The content of ``file``; without one, of the working folder's ``card.yaml``, or nothing if it is missing.

    Args:
        file: As ``registry.card`` names it; a relative path is below the working folder.

    Raises:
        ConfigError: If a file that was named is missing, or a field is unknown, too long or of the wrong type.

    Example:
        >>> Path("card.yaml").write_text("license: apache-2.0")
        >>> read(None).license
        'apache-2.0'
    """
    if file is None and not DEFAULT.is_file():
        return None
    file = file or DEFAULT
    content = yaml_file.read("registry.card", file, "license: apache-2.0")
    fields, name = [*CardFile.model_fields], printed(str(file))
    for field in content:
        if field not in fields:
            raise ConfigError(
                f"{name} must have no other fields than {', '.join(fields)}. Received: "
                f"{printed(field)}{did_you_mean(field, fields)}"
            )
    try:
        return CardFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{name}: {config_sentence(error)}") from error
