"""The layers in a file of weights, read as data: nothing in the file is run, and no other file is opened.

Keras has written weights in two forms. In a ``.weights.h5`` file, and in the one inside a ``.keras`` file, the path of
an array follows the attributes of the layers: ``layers/conv2d/vars/0``. The older form, that of the ImageNet weights,
lists the layers in order, each with a name and its arrays.
"""

import contextlib
import math
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import h5py

from layerflow.errors import ConfigError, printed

#: Where a ``.keras`` file has its weights.
_INSIDE = "model.weights.h5"
#: Most groups and arrays in a file, and most groups around one. The largest networks of ``keras.applications`` have a
#: tenth of them; a file whose groups hold each other has endlessly many.
_MOST_OBJECTS, _MOST_LEVELS = 100_000, 64
#: Most bytes of an array's chunk, which HDF5 reads as a whole.
_MOST_CHUNK = 2**26
#: What h5py and zipfile raise of a file that is damaged or of another kind.
_UNREADABLE = (
    *(KeyError, ValueError, TypeError, RuntimeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


class StoredLayer(NamedTuple):
    """A layer's floating-point arrays by their keys in the file; a layer in order has all of its arrays."""

    name: str
    arrays: dict[str, h5py.Dataset]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        return {key: tuple(array.shape) for key, array in self.arrays.items()}


class Stored(NamedTuple):
    """What a file holds: layers by path, or layers in order."""

    by_path: dict[str, StoredLayer]
    in_order: list[StoredLayer]


@contextlib.contextmanager
def stored_in(file: Path) -> Iterator[Stored]:
    """The layers in a ``.keras`` or HDF5 file. Arrays are read when they are asked for, within the context.

    Raises:
        ConfigError: If it is no such file, is damaged, or leads to other files.
    """
    try:
        with contextlib.ExitStack() as stack:
            source: Path | IO[bytes] = file
            if file.suffix == ".keras":
                archive = stack.enter_context(zipfile.ZipFile(file))
                if archive.getinfo(_INSIDE).compress_type != zipfile.ZIP_STORED:
                    _refuse(file, f"{_INSIDE} in it is compressed, as Keras never writes it")
                source = stack.enter_context(archive.open(_INSIDE))
            tree = stack.enter_context(h5py.File(source, "r"))
            arrays = _arrays(file, tree)
            listed = tree.get("model_weights", tree)
            if names := _names(listed, "layer_names"):
                prefix = "model_weights/" if "model_weights" in tree else ""
                yield Stored({}, [_in_order(listed, name, prefix, arrays) for name in names])
            else:
                yield Stored(layers_by_path(tree, arrays), [])
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        _refuse(file, _said(error), error)
    except OSError as error:
        if error.errno is not None:  # the disk's, not the file's
            raise
        _refuse(file, _said(error), error)


def layers_by_path(tree: h5py.File, arrays: dict[str, h5py.Dataset] | None = None) -> dict[str, StoredLayer]:
    """The layers of a file in Keras' present form, by path; those without floating-point arrays are left out."""
    found: dict[str, StoredLayer] = {}
    for path, array in (_arrays(Path(tree.filename), tree) if arrays is None else arrays).items():
        place, _, key = path.rpartition("/")
        layer, _, last = place.rpartition("/")
        if last == "vars" and array.dtype.kind == "f":
            found.setdefault(layer, StoredLayer(_name(tree[place]), {})).arrays[key] = array
    return found


def _arrays(file: Path, tree: h5py.File) -> dict[str, h5py.Dataset]:
    """Every array by its path, where all of them are in this very file."""
    found: dict[str, h5py.Dataset] = {}
    waiting, objects = deque([("", tree)]), 0
    while waiting:
        path, group = waiting.popleft()
        for name in group:
            place = f"{path}/{name}" if path else name
            objects += 1
            if objects > _MOST_OBJECTS or place.count("/") > _MOST_LEVELS:
                _refuse(file, "it holds more groups and arrays than any network")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                _refuse(file, f"{printed(place)} leads to another place or file")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((place, item))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    _refuse(file, f"the numbers of {printed(place)} are in another file")
                if item.chunks and math.prod(item.chunks) * item.dtype.itemsize > max(item.nbytes, _MOST_CHUNK):
                    _refuse(file, f"{printed(place)} is stored in chunks larger than itself")
                found[place] = item
    return found


def _in_order(tree: h5py.Group, name: str, prefix: str, arrays: dict[str, h5py.Dataset]) -> StoredLayer:
    names = _names(tree[name], "weight_names")
    return StoredLayer(name, {str(at): arrays[f"{prefix}{name}/{each}"] for at, each in enumerate(names)})


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names among a group's attributes, in parts where it is long."""
    if attribute in group.attrs:
        return _texts(group.attrs[attribute])
    names, part = list[str](), 0
    while f"{attribute}{part}" in group.attrs:
        names += _texts(group.attrs[f"{attribute}{part}"])
        part += 1
    return names


def _texts(names: object) -> list[str]:
    assert hasattr(names, "__iter__")
    return [each.decode() if isinstance(each, bytes) else str(each) for each in names]


def _name(group: h5py.Group) -> str:
    name = group.attrs.get("name", "")
    return name if isinstance(name, str) else ""


def _said(error: Exception) -> str:
    return printed(" ".join(str(error).split()) or type(error).__name__)


def _refuse(file: Path, reason: str, error: Exception | None = None) -> NoReturn:
    raise ConfigError(
        f"{printed(str(file))} must be a file of weights that Keras wrote, .keras or .weights.h5. It can't be used "
        f"({reason}); save it again."
    ) from error
