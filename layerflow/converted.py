"""The record of a model in other formats than the SavedModel, before they are proved."""

from collections.abc import Mapping

from layerflow.records import Record

#: The file of each format.
FILES = {"litert": "model.tflite", "litert_int8": "model_int8.tflite", "onnx": "model.onnx"}


class Converted(Record):
    """An export in other formats: the SHA-256 of each format's file, or why it can't be made."""

    export_digest: str
    files: dict[str, str]
    failed: dict[str, str]

    def matches(self, files: Mapping[str, str]) -> bool:
        """Whether the files are those of the digests."""
        return {FILES[name]: digest for name, digest in self.files.items()} == files
