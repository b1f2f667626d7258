"""Which code a step runs, as a digest: a step whose code changed runs again, the others stay cached."""

import ast
import functools
import hashlib
import importlib.metadata
from modulefinder import ModuleFinder
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
#: Where the code that does the work lives; flows, tasks and the command line only arrange it.
_ROOMS = [_ROOT / "layerflow", _ROOT / "layers"]
#: The libraries whose version can change what a step makes, by the module that is imported.
_LIBRARIES = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "tensorflow_datasets": "tensorflow-datasets",
    "sklearn": "scikit-learn",
    "PIL": "pillow",  # decodes and resizes
    "numpy": "numpy",  # draws the order of an epoch
}


@functools.cache
def code_digest(start: Path) -> str:
    """SHA-256 of the modules of ``layerflow`` and ``layers`` that the file ``start`` reaches by its imports.

    The versions of the libraries that these modules import are part of it (tensorflow, keras, numpy, ...);
    comments and formatting are not.
    """
    # Without `tasks`: the step's file names what it runs, and its package would bring in the other steps.
    finder = ModuleFinder(path=[str(_ROOT)], excludes=["tasks"])
    finder.run_script(str(start))
    digest = hashlib.sha256()
    for module, package in _LIBRARIES.items():
        if module in finder.badmodules:  # imported, and not ours
            digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    files = [getattr(module, "__file__", None) for module in finder.modules.values()]
    for file in sorted(Path(name) for name in files if name):
        if any(file.is_relative_to(room) for room in _ROOMS):
            source = ast.dump(ast.parse(file.read_bytes()))
            digest.update(f"{file.relative_to(_ROOT).as_posix()} {source}\n".encode())
    return digest.hexdigest()
