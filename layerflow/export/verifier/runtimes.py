"""Runtimes that run a model of one file: how each is asked, and what it says that the model takes and gives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .refusal import require


class Spec(NamedTuple):
    """A tensor's dtype, by NumPy's name, and its shape, with nothing for a size that is free."""

    dtype: str
    shape: tuple[int | None, ...]


class Runtime(ABC):
    """A loaded model of one file.

    Attributes:
        name: Of the runtime, with its version.
        inputs, outputs: What the model takes and gives, by name.
    """

    name: str
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]

    @abstractmethod
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name."""


class LiteRT(Runtime):
    """The signature ``serving_default`` of a file for LiteRT."""

    def __init__(self, content: bytes) -> None:
        import ai_edge_litert
        from ai_edge_litert import interpreter

        self.name = f"LiteRT {ai_edge_litert.__version__}"
        loaded = interpreter.Interpreter(model_content=content)
        signatures = loaded.get_signature_list()
        require("serving_default" in signatures, f"signature serving_default is missing: {list(signatures)}")
        self.run_signature = loaded.get_signature_runner("serving_default")
        self.inputs = _litert_specs(self.run_signature.get_input_details())
        self.outputs = _litert_specs(self.run_signature.get_output_details())

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(self.run_signature(images=images))


def _litert_specs(details: dict[str, dict[str, Any]]) -> dict[str, Spec]:
    """``shape_signature`` has -1 for a free size, and ``shape`` the size that there is room for now."""
    return {
        name: Spec(np.dtype(each["dtype"]).name, tuple(None if size < 0 else int(size) for size in _shape(each)))
        for name, each in details.items()
    }


def _shape(detail: dict[str, Any]) -> np.ndarray:
    shape = detail["shape_signature"]
    return np.asarray(shape if len(shape) else detail["shape"])


class Onnx(Runtime):
    """A file for ONNX Runtime, on the processor."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        # From memory: a file may name others beside it, which ONNX Runtime would read.
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = (
            {each.name: Spec(_ONNX_DTYPES.get(each.type, each.type), _free(each.shape)) for each in nodes}
            for nodes in (self.session.get_inputs(), self.session.get_outputs())
        )

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(list(self.outputs), {"images": images}), strict=True))


_ONNX_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
RUNTIMES: dict[str, Callable[[bytes], Runtime]] = {"litert": LiteRT, "onnx": Onnx}


def _free(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
