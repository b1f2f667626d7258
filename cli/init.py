"""`layerflow init`: a folder with settings, a network with its own layer, a test, and a nightly run."""

import importlib.metadata
import importlib.util
import json
import keyword
import shutil
import string
import textwrap
from pathlib import Path

from layerflow.errors import ConfigError, printed

_TEMPLATE = Path(__file__).parent / "template"
#: Files of the template whose place in the project is another one, by their path without `.tmpl`.
_PLACES = {"gitignore": ".gitignore", "workflow.yml": ".github/workflows/test.yml"}
_DIGITS = "name: digits # scikit-learn's handwritten digits, to begin with; your own: name: folder, path, image_size"


def init(name: str, data: Path | None) -> Path:
    """Make the folder ``name``, as a whole or not at all.

    Args:
        data: A folder of images, ``train/<class>/`` or ``<class>/``; default: the digits.

    Returns:
        The folder.

    Raises:
        ConfigError: If there is such a folder, or it can't be the name of a Python package, or the data don't exist.
    """
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ConfigError(
            "NAME must be that of a Python package: lower-case letters, digits and _, a letter first, and no keyword, "
            f"such as mypets. Received: {printed(name)}"
        )
    folder = Path(name)
    if folder.exists():
        raise ConfigError(f"NAME must be that of a new folder. {folder.absolute()} exists; choose another one.")
    if importlib.util.find_spec(name):
        raise ConfigError(f"NAME must not be that of an installed package. {name} is; choose another one.")
    if data and not data.is_dir():
        raise ConfigError(f"--data must be a folder of images. Received: {printed(str(data))}, which is not a folder.")
    if data and not any(each.is_dir() for each in data.iterdir()):
        raise ConfigError(
            f"--data must hold train/<class>/ or <class>/. {printed(str(data))} holds no folder; name the one above "
            "the classes."
        )
    part = folder.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(part, name, data)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(folder: Path, name: str, data: Path | None) -> None:
    of_folder = f"name: folder\npath: {json.dumps(str(data.absolute()))}\nimage_size: 96x96" if data else ""
    settings = (
        f"data:\n{textwrap.indent(of_folder or 'name: digits', '  ')}\nmodel: {{ name: {name}.network:network }}\n"
        "training: { epochs: 60, patience: 15 }\ngate: { min_test_examples: 100 }\n"
        f"registry: {{ name: {name} }}"
    )
    values = {
        "name": name,
        "data": textwrap.indent(of_folder or _DIGITS, "  "),
        "config": textwrap.indent(settings, 8 * " "),
        "version": importlib.metadata.version("layerflow"),
        "prefect": importlib.metadata.version("prefect"),
    }
    for file in sorted(_TEMPLATE.rglob("*.tmpl")):
        place = file.relative_to(_TEMPLATE).as_posix().removesuffix(".tmpl").replace("package/", f"{name}/")
        target = folder / _PLACES.get(place, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(string.Template(file.read_text()).substitute(values))
