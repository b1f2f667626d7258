"""Reload verification: a program that runs in a process of its own, which has only a runtime and NumPy.

Usage: ``python -I -S layerflow/export/verifier DESCRIPTOR RUNTIME FOLDER...``. The runtime is ``tensorflow``,
``litert`` or ``onnx``; the folders are those of the libraries, the only places to import from. Then it waits for
requests, one JSON object a line on stdin, so that it can be started before there is something to verify. It writes one
JSON object a line to the descriptor: either ``{"refused": reason}`` or the figures, with the request's nonce. Stdout
and stderr are left to whatever the libraries print. It imports nothing of this project but the modules beside it, and
proves that it could not: a model that needs its training code to be loaded is no model to serve.

A request verifies ``saved_model``; or, where it names a ``champion``, it scores both on the same test examples. With
another runtime than TensorFlow, it verifies one ``file``.

The model is treated as hostile: before TensorFlow loads it, its file is parsed, and every operation in it must be on
the list of what computes, loads or saves a model. A graph that can write a file could otherwise write anywhere.
"""

import gc
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

#: The project's packages, which a wheel installs among the libraries; and Keras, which no server of models needs.
#: TensorFlow imports it where it finds it, which takes nearly as long again.
HIDDEN = ("cli", "flows", "layerflow", "layers", "tasks", "keras")


class Libraries(PathFinder):
    """Finds everything in the folders but what is hidden."""

    @classmethod
    def find_spec(cls, fullname: str, *arguments: Any) -> Any:
        return None if fullname in HIDDEN else super().find_spec(fullname, *arguments)


if __name__ == "__main__":
    gc.set_threshold(10_000)  # as layerflow/__init__.py has it, and for the same reason
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)] + sys.argv[3:]
    sys.meta_path[sys.meta_path.index(PathFinder)] = Libraries
    # As a package of its own, so that the modules beside this one are found and nothing else of the project is.
    spec = importlib.util.spec_from_file_location("verifier", Path(__file__).with_name("__init__.py"))
    assert spec
    sys.modules["verifier"] = importlib.util.module_from_spec(spec)
    importlib.import_module("verifier.answer" if sys.argv[2] == "tensorflow" else "verifier.portable").main()
