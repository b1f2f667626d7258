"""Finding the extensions that ``extend`` names, and calling them: an error in one is a sentence with its name."""

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from layerflow import user_code
from layerflow.code_digest import code_digest
from layerflow.errors import ConfigError, LayerflowError, did_you_mean, printed

#: What layerflow brings, by kind and name.
_BUILT_IN = {
    "trackers": {"mlflow": "layerflow.trackers.mlflow:track", "wandb": "layerflow.trackers.wandb:track"},
}
#: Our own packages, and how the folders of installed ones are called.
_LAYERFLOW, _INSTALLED = {"cli", "flows", "layerflow", "layers", "tasks"}, {"site-packages", "dist-packages"}
#: What a sentence says that an extension of each kind must be.
_MUST = {
    "checks": "yield pairs of a level and a sentence",
    "metrics": "give a finite number of labels and probabilities",
    "exporters": "write a file, and answer images by it",
    "trackers": "record a run",
    "publishers": "take a version elsewhere",
}


def load(kind: str, name: str) -> Any:
    """The extension: what ``mypackage.mymodule:mything`` or the entry point ``name`` of ``layerflow.<kind>`` names.

    Raises:
        ConfigError: If it can't be imported, is nothing that can be called, or is of a package that is not yours and
            says nothing of layerflow.
    """
    place, setting = _place(kind, name), f"extend.{kind}"
    if _is_ours(kind, name):
        module = importlib.import_module(place.partition(":")[0])
    else:
        module = user_code.load_module(place, setting)
    attribute = place.partition(":")[2]
    found = getattr(module, attribute, None)
    if not callable(found):
        near = did_you_mean(attribute, [each for each in dir(module) if not each.startswith("_")])
        raise ConfigError(f"{module.__name__} must hold a function or class {attribute}. It has none{near}.")
    if ":" in name and not _is_yours(found):
        raise ConfigError(
            f"{setting} must name something of your own, or of a package that needs layerflow. {name} is neither; "
            "write a function that calls it."
        )
    return found


def digests(kind: str, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the code of each extension: of its whole package, as with a network of your own.

    Raises:
        ConfigError: If there is no such extension.
    """
    return {name: _digest(kind, name) for name in names}


def _digest(kind: str, name: str) -> str:
    place = _place(kind, name)
    if _is_ours(kind, name):
        return code_digest(place.partition(":")[0])
    return user_code.package_digest(place, f"extend.{kind}")


def _is_ours(kind: str, name: str) -> bool:
    return name in _BUILT_IN.get(kind, {})


def _place(kind: str, name: str) -> str:
    """``module:attribute`` of an extension.

    Raises:
        ConfigError: If ``name`` is of no entry point.
    """
    if ":" in name:
        return name
    known = _BUILT_IN.get(kind, {}) | entry_points(kind)
    if name not in known:
        told = f" ({', '.join(sorted(known))})" if known else ""
        raise ConfigError(
            f"extend.{kind} must name mypackage.mymodule:mything, or an entry point of the group layerflow.{kind}"
            f"{told}. Received: {printed(name)}{did_you_mean(name, known)}."
        )
    return known[name]


@functools.cache
def entry_points(kind: str) -> dict[str, str]:
    """What installed packages declare in the group ``layerflow.<kind>``: ``module:attribute`` by name."""
    return {each.name: each.value for each in importlib.metadata.entry_points(group=f"layerflow.{kind}")}


def _is_yours(found: Any) -> bool:
    """Whether something is there to extend layerflow: whoever may set ``extend`` must not call anything else.

    It is defined in code that is in no installed package, or in a package that needs layerflow.
    """
    module = getattr(found, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module.partition(".")[0] in _LAYERFLOW:
        return False
    if _INSTALLED & {*Path(file).parts}:
        return _needs_layerflow(module)
    return not Path(file).is_relative_to(sysconfig.get_path("stdlib"))


def _needs_layerflow(module: str) -> bool:
    distributions = importlib.metadata.packages_distributions().get(module.partition(".")[0], ())
    needs = [each for name in distributions for each in importlib.metadata.requires(name) or ()]
    return any(re.match(r"layerflow(?![\w.-])", each) for each in needs)


@contextlib.contextmanager
def calling(kind: str, name: str) -> Iterator[None]:
    """Call an extension: whatever it raises becomes a sentence with its name.

    Raises:
        ConfigError: If something was raised. What may heal by itself, such as a lost connection, is raised as it is.
    """
    try:
        yield
    except (LayerflowError, OSError):
        raise
    except (Exception, SystemExit) as error:  # whatever a user's code may raise
        said = printed(" ".join(f"{type(error).__name__}: {error}".split()), 400)
        raise ConfigError(f"extend.{kind} {name} must {_MUST[kind]}. It raises {said}{_line(error)}.") from error


def _line(error: BaseException) -> str:
    """Where a user's code raised it: the innermost line that is in no installed package."""
    here = Path(__file__).parent
    for frame in reversed(inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []):
        file = Path(frame.filename)
        if not _INSTALLED & {*file.parts} and here not in file.parents and file.is_file():
            return f" ({file.name}:{frame.lineno})"
    return ""
