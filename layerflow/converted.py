"""The record of a model in other formats than the SavedModel, before they are proved."""

from collections.abc import Mapping

from pydantic import Field

from layerflow.records import Record

#: The file of each format.
FILES = {"litert": "model.tflite", "litert_int8": "model_int8.tflite", "onnx": "model.onnx"}


class Converted(Record):
    """An export in other formats: the SHA-256 of each format's file, or why it can't be made.

    ``own_files`` has the names of the files of formats that an exporter of ``extend.exporters`` wrote.
    """

    export_digest: str
    files: dict[str, str]
    failed: dict[str, str]
    own_files: dict[str, str] = Field(default_factory=dict)

    def file_of(self, name: str) -> str:
        """The file of a format."""
        return self.own_files.get(name) or FILES[name]

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the files are those of the digests."""
        return {self.file_of(name): digest for name, digest in self.files.items()} == files
