"""What trackers need: packages and variables. A run asks for them as it begins, hours before a tracker is called."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator

from layerflow.errors import ConfigError


def require(tracker: str, *modules: str) -> None:
    """See that the modules of a tracker's extra, which has the tracker's name, are installed.

    Raises:
        ConfigError: With the command that installs them.
    """
    for module in modules:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:  # a folder of that name in the working folder is no package
            raise ConfigError(
                f"extend.trackers {tracker} needs {module}, which is not installed; pip install "
                f"'layerflow[{tracker}]', or in a clone: make {tracker}."
            )


def require_variable(tracker: str, variable: str, meaning: str, example: str) -> str:
    """The value of an environment variable without which a tracker does not know where to record.

    Raises:
        ConfigError: If it is not set.
    """
    if value := os.environ.get(variable):
        return value
    raise ConfigError(
        f"extend.trackers {tracker} needs {variable}, {meaning}, which is not set; set it, for example to {example}."
    )


@contextlib.contextmanager
def variables(wanted: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, those that are not set."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
