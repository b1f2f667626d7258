"""How long the store keeps what no published model needs."""

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field, TypeAdapter, ValidationError

from layerflow.settings.fields import Group

_bytes = TypeAdapter(ByteSize)


def _is_size(text: str) -> str:
    try:
        _bytes.validate_python(text)
    except ValidationError as error:
        raise ValueError("a size with its unit, such as 50GB or 500MiB") from error
    return text


class GcConfig(Group):
    """What a collection of garbage keeps, beside what the published models need."""

    keep_days: Annotated[
        float, Field(ge=0, le=36_500, description="Keep whatever was made or used in the last so many days.")
    ] = 30
    keep_runs: Annotated[
        int, Field(ge=0, le=10_000, description="Keep all that the last runs of each model made, this number of them.")
    ] = 3
    max_size: Annotated[
        str,
        AfterValidator(_is_size),
        Field(
            max_length=30,
            description="Size of the store, such as 50GB. Above it, what was used longest ago goes first, before its "
            "days are over.",
        ),
    ] = "50GB"

    @property
    def max_bytes(self) -> int:
        """``max_size`` in bytes."""
        return int(_bytes.validate_python(self.max_size))
