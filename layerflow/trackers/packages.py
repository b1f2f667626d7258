"""Whether what a tracker needs is here, which is asked when a run begins: hours before the tracker is called."""

import importlib.util
import os

from layerflow.errors import ConfigError


def require(tracker: str, *modules: str) -> None:
    """See that the modules of a tracker's extra, which has the tracker's name, are installed.

    Raises:
        ConfigError: With the command that installs them.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"extend.trackers {tracker} needs {module}, which is not installed; pip install "
                f"'layerflow[{tracker}]', or in a clone: make {tracker}."
            )


def require_variable(tracker: str, variable: str, example: str) -> str:
    """The value of an environment variable without which a tracker does not know where to record.

    Raises:
        ConfigError: If it is not set.
    """
    if value := os.environ.get(variable):
        return value
    raise ConfigError(
        f"extend.trackers {tracker} needs {variable}, the address of the server, which is not set; set it, for example "
        f"to {example}."
    )
