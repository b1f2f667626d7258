"""What a receipt tells of a model's files in other formats."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Format(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    file: str
    digest: str
    reason: str | None = None


class FormatsTold(BaseModel):
    """The part ``formats`` of a receipt: the step that proved them, and each format."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    folder: str = ""
    formats: list[_Format] = []

    @property
    def published(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        return {each.file: each.digest for each in self.formats if each.reason is None}


def formats_of(receipt: dict[str, Any]) -> FormatsTold:
    """What a receipt tells, of a version or of a candidate; one without formats has none."""
    return FormatsTold.model_validate(receipt.get("formats", {}))
