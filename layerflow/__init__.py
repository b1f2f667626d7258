"""The work itself, free of Prefect: data, models, training, evaluation, export, verification, registry."""

import gc
import importlib.util
import os
from pathlib import Path

# TensorFlow reads this once, at its import: informational lines of its C++ code stay out of people's logs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Python's collector of garbage runs after 700 new objects that stay, and the libraries make two million when they are
# imported. A longer wait takes a quarter off that time.
if 0 < gc.get_threshold()[0] < 10_000:
    gc.set_threshold(10_000)


def _require_our_packages() -> None:
    """See that no folder hides a package of layerflow: what runs by ``python -m``, as workers do, looks there first."""
    for name in ("cli", "flows", "layers", "tasks"):
        found = importlib.util.find_spec(name)
        ours = Path(__file__).resolve().parent.with_name(name) / "__init__.py"
        if found and found.origin and Path(found.origin).resolve() != ours:
            raise ImportError(
                f"layerflow has a package {name}, and {found.origin} hides it. Rename that one, such as to my{name}."
            )


_require_our_packages()
