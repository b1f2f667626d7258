"""What a user brings: networks (``model.name mypackage.mymodule:MyNet``), modules that register datasets.

Imports TensorFlow only to make a network.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from layerflow import checksums
from layerflow.errors import ConfigError, did_you_mean, printed
from layerflow.settings.applications import is_application
from layerflow.settings.hub import is_hub

#: The user's packages that were imported, with the setting that names each.
_packages: dict[str, str] = {}
#: A network may be one of Keras' own, and an error that passes through Keras is rarely its fault.
_NOT_OURS_TO_BLAME = {"keras", "tensorflow"}
#: How the names of distributions begin that networks are made with.
_BOTH = ("keras", "tensorflow")
#: Our own packages, none of whose functions makes a network by name.
_LAYERFLOW = {"cli", "flows", "layerflow", "layers", "tasks"}
#: A frame as TensorFlow quotes it in the text of an error in a traced function.
_QUOTED = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
#: What Python says of a call with the wrong arguments.
_DEFINED = re.compile(r"([A-Za-z_][\w.]*)\(\) ")


def is_own(name: str) -> bool:
    """Whether a network's name is that of something to be imported."""
    return ":" in name and not is_application(name) and not is_hub(name)


def package_digest(name: str, setting: str = "model.name") -> str:
    """SHA-256 of the sources of the package of ``name``: if one changes, the network is another one.

    Raises:
        ConfigError: If there is no such package.
    """
    top = name.partition(":")[0].partition(".")[0]
    _require_not_ours(top, setting)
    _look_here()
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was made without one
        spec = None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise ConfigError(
            f"{setting} must name something that can be imported. No module {top} exists; start from the folder that "
            f"holds it, or install it. Received: {name}"
        )
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations or []:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()} {checksums.sha256(file)}\n".encode())
    if not spec.submodule_search_locations and spec.origin:
        digest.update(checksums.sha256(Path(spec.origin)).encode())
    return digest.hexdigest()


def load_module(name: str, setting: str = "model.name") -> ModuleType:
    """Import the module of ``name``, which makes saved files of its classes loadable.

    Raises:
        ConfigError: If it can't be imported.
    """
    _look_here()
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    _require_not_ours(top, setting)
    if top not in _NOT_OURS_TO_BLAME:
        _packages[top] = setting
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module may raise
        if isinstance(error, ModuleNotFoundError) and error.name:
            _require_not_ours(error.name.partition(".")[0], setting)
        reason = printed(" ".join(f"{type(error).__name__}: {error}".split()), 400)
        raise ConfigError(f"{setting} must name something that can be imported. {module} can't ({reason}).") from error


def maker_of(name: str, setting: str = "model.name", base: Any = None) -> Any:
    """The class or function that ``name`` names.

    Args:
        base: What the class must derive from: a class of Keras; by default ``keras.Model``.

    Raises:
        ConfigError: If it can't be imported, its module holds no such thing, or it is not there for ``setting``.
    """
    import keras

    base = base or keras.Model
    module, attribute = load_module(name, setting), name.partition(":")[2]
    maker = getattr(module, attribute, None)
    if not callable(maker):
        near = did_you_mean(attribute, [each for each in dir(module) if not each.startswith("_")])
        raise ConfigError(f"{module.__name__} must hold a class or function {attribute}. It has none{near}.")
    if not _works_with_keras(maker, base):
        raise ConfigError(
            f"{setting} must name a Keras {base.__name__.lower()} class, or a function of your own. {name} "
            "is neither; write a function that calls it, or name keras in the requirements of its package."
        )
    return maker


def _works_with_keras(maker: Any, base: Any) -> bool:
    """Whether ``maker`` is there to work with Keras: whoever may set ``model.name`` must not call anything else.

    A class that derives from ``base``, a function of ``keras.applications``, or a function that is defined in the
    user's own code: in no installed package, or in one that says that it needs Keras and is no part of layerflow or
    TensorFlow.
    """
    if inspect.isclass(maker):
        return issubclass(maker, base)
    module = getattr(maker, "__module__", None) or ""
    file, top = getattr(sys.modules.get(module), "__file__", None), module.partition(".")[0]
    if module.startswith("keras.src.applications."):
        return True
    if file is None or top in _LAYERFLOW:
        return False
    is_pythons = Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    if not is_pythons and not {"site-packages", "dist-packages"} & {*Path(file).parts}:
        return True
    return any(map(_needs_keras, importlib.metadata.packages_distributions().get(top, ())))


def _needs_keras(distribution: str) -> bool:
    """Whether an installed distribution other than TensorFlow's own says that it needs Keras or TensorFlow."""
    needs = [each for each in importlib.metadata.requires(distribution) or () if "extra" not in each.partition(";")[2]]
    return not distribution.startswith(_BOTH) and any(each.startswith(_BOTH) for each in needs)


def blame(error: Exception) -> ConfigError | None:
    """One sentence about a mistake in the user's own code, with its file and line; nothing where it is not theirs."""
    if (where := _place(error)) is None:
        return None
    place, setting = where
    return ConfigError(f"The code that {setting} names must run. {place} fails; correct it. {_said(error)}")


def make_network(name: str, classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]) -> Any:
    """Call what ``name`` names, and return the Keras model that it gives, built for the images.

    It is called with ``options``, and with ``classes`` and ``image_shape`` where it takes them. The model may give
    probabilities in place of logits.

    Raises:
        ConfigError: If it can't be imported or called, gives no Keras model, or one that does not give one number a
            class for raw ``uint8`` images.
    """
    import keras
    import numpy as np

    maker = maker_of(name)
    given = {"classes": classes, "image_shape": image_shape}
    try:
        network = maker(**_taken(maker, given), **options)
    except Exception as error:
        raise ConfigError(
            f"{name} must make a network of {_call(maker, given, options)}. {_said_where(error)}"
        ) from error
    if not isinstance(network, keras.Model):
        raise ConfigError(f"{name} must give a keras.Model. Received: {type(network).__name__}")
    for method in ("compute_loss", "train_step"):
        if getattr(type(network), method) is not getattr(keras.Model, method):
            raise ConfigError(
                f"{name} must learn by cross-entropy, and layerflow calls no `{method}`. Received: "
                f"{type(network).__name__} with a {method} of its own; call add_loss in its layers instead."
            )
    try:
        logits = network(np.zeros((2, *image_shape), np.uint8), training=False)
    except Exception as error:
        raise ConfigError(f"{name} must take raw uint8 images of shape {image_shape}. {_said_where(error)}") from error
    if getattr(logits, "shape", None) != (2, classes) or "float" not in keras.backend.standardize_dtype(logits.dtype):
        raise ConfigError(
            f"{name} must give one logit a class, a tensor of floats of shape (batch, {classes}). "
            f"Received: {getattr(logits, 'shape', type(logits).__name__)}"
        )
    return network


def ensure_reloadable(name: str, network: Any, file: Path, image_shape: tuple[int, int, int]) -> None:
    """Load what was saved, and see that it answers as before.

    Raises:
        ConfigError: If it does not; then its config or the names of its weights lack something.
    """
    import keras
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (2, *image_shape), np.uint8)
    remedy = "register its classes, give them get_config, and make their weights in build()"
    try:
        again = keras.models.load_model(file, compile=False)(images, training=False)
    except Exception as error:
        raise ConfigError(f"{name} must load again once it is saved; {remedy}. {_said_where(error)}") from error
    if not np.allclose(again, network(images, training=False), rtol=1e-4, atol=1e-4):
        raise ConfigError(f"{name} must answer the same once it is saved and loaded. It does not; {remedy}.")


def _require_not_ours(top: str, setting: str) -> None:
    """Ensure that your own code does not have the name of a package of layerflow, which is found in its place.

    Raises:
        ConfigError: If it has.
    """
    ours = Path(__file__).resolve().parent.parent / top
    theirs = next((each for each in (Path(top), Path(f"{top}.py")) if each.exists()), None)
    if top in _LAYERFLOW and theirs and theirs.resolve() != ours:
        raise ConfigError(
            f"{setting} must not name a package of layerflow, and {top} is one. Give {theirs} another name, such as "
            f"my{theirs}."
        )


def _look_here() -> None:
    """Find modules in the working folder, as ``python -m`` does and an installed command does not."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _taken(maker: Any, given: dict[str, Any]) -> dict[str, Any]:
    # Of the class itself some Pythons see `keras.Model.__new__` alone, which takes everything.
    parameters = inspect.signature(maker.__init__ if inspect.isclass(maker) else maker).parameters
    return {name: value for name, value in given.items() if name in parameters}


def _call(maker: Any, given: dict[str, Any], options: dict[str, Any]) -> str:
    return ", ".join([*_taken(maker, given), *options]) or "no arguments"


def _place(error: BaseException | None) -> tuple[str, str] | None:
    """``file:line in function`` of your own code that an error comes from, and the setting that names that code.

    The innermost frame of theirs, the innermost that TensorFlow quotes, or the definition of what can't be called so.
    """
    while error is not None:
        frames = [
            (frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)
        ]
        quoted = [(file, int(line), where) for file, line, where in _QUOTED.findall(str(error))]
        called = _DEFINED.match(str(error)) if isinstance(error, TypeError) else None
        for file, line, where in (*reversed(quoted), *reversed(frames), *(_definition(called[1]) if called else ())):
            if setting := _setting_of(file):
                return f"{file}:{line} in {where}", setting
        error = error.__cause__ or error.__context__
    return None


def _setting_of(file: str) -> str | None:
    """The setting whose package holds ``file``."""
    for top, setting in _packages.items():
        module = sys.modules.get(top)
        folders = [Path(folder) for folder in getattr(module, "__path__", ())]
        if file == getattr(module, "__file__", None) or any(folder in Path(file).parents for folder in folders):
            return setting
    return None


def _definition(qualified: str) -> list[tuple[str, int, str]]:
    """Where the user's modules define ``Class.method``, which failed before its first line."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _packages:
            thing: Any = module
            for part in qualified.split("."):
                thing = getattr(thing, part, None)
            if code := getattr(inspect.unwrap(thing) if callable(thing) else None, "__code__", None):
                found.append((code.co_filename, code.co_firstlineno, qualified))
    return found


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if lines and lines[0] == "in user code:":  # TensorFlow's words; the error's own stand last
        return f"It says: {lines[-1]}"
    first = next(iter(lines), "")
    said = first.partition(" Full object config:")[0]  # Keras appends hundreds of characters of it
    return f"It says: {type(error).__name__}: {said}"


def _said_where(error: Exception) -> str:
    """The error's message, and the line of user code that caused it."""
    where = _place(error)
    return f"{_said(error)} ({where[0]})" if where else _said(error)
