"""Giving a network the weights of a file, as far as they fit."""

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from layerflow import checksums
from layerflow.errors import ConfigError, printed
from layerflow.models.weights_file import Stored, StoredLayer, layers_by_path, stored_in
from layerflow.weights import LoadedWeights

log = logging.getLogger(__name__)
#: Layers that a record names, of those left out and of those newly made.
_MOST_NAMED = 20
#: The standard deviations of ImageNet's channels.
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class _Fit(NamedTuple):
    """Which layers fit: pairs of ours and theirs, then what is left over of both, by name or path."""

    pairs: list[tuple[Any, StoredLayer]]
    new: list[str]
    skipped: list[str]


def load_weights(
    network: keras.Model, file: Path, source: str, license: str = "unknown", new: Set[str] = frozenset()
) -> LoadedWeights:
    """Give each layer of ``network`` the weights of its counterpart in ``file``; the other layers keep theirs.

    Two layers are counterparts if they have the same path, or the same name, and all of their arrays have the same
    shapes. Keras numbers the names that nobody gave, and another layer can move all paths. So the way that fits the
    most weights is taken: by path in the whole network, by path in its backbone, or by name. A file in the older form
    is read in the order of its layers, as Keras reads it.

    Numbers that are no floats, such as the state of random layers, are not taken over.

    Args:
        source: What the file is, for the record and for errors.
        license: That of the weights.
        new: Names of layers that keep theirs, whatever is in the file.

    Raises:
        ConfigError: If it is no file of weights, is damaged, or if nothing in it fits.
    """
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / "own.weights.h5"
        network.save_weights(own)
        with stored_in(file) as stored:
            fit = _load_in_order(network, stored) if stored.in_order else _copy_by_path(own, stored, new)
            parameters = sum(int(np.prod(shape)) for _, layer in fit.pairs for shape in layer.shapes.values())
        if not fit.pairs:
            raise ConfigError(
                f"model.weights must fit the network. Of the layers in {printed(source)}, {_counted(fit.skipped)}, "
                f"none has the path or name and the shapes of one in the network, {_counted(fit.new)}; choose weights "
                "of such a network."
            )
        if not stored.in_order:
            network.load_weights(own)
    log.info(
        "weights of %s: layers loaded: %d, with %d parameters; newly made: %s; not used: %s",
        *(printed(source), len(fit.pairs), parameters, _counted(fit.new), _counted(fit.skipped)),
    )
    return LoadedWeights(
        source=source,
        file=file.name,
        sha256=checksums.sha256(file),
        license=license,
        loaded=len(fit.pairs),
        parameters=parameters,
        skipped=len(fit.skipped),
        new=len(fit.new),
        skipped_layers=tuple(fit.skipped[:_MOST_NAMED]),
        new_layers=tuple(fit.new[:_MOST_NAMED]),
    )


def scale_as_imagenet_does(network: keras.Model) -> None:
    """Make the published weights of EfficientNet see the pixels that they were trained on.

    These were divided by the square root of ImageNet's deviation once more, and Keras adds a layer for it if it loads
    the weights itself. Here, the variance of the normalisation takes it in.

    References:
        https://github.com/tensorflow/tensorflow/issues/49930
    """
    for layer in network.backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.adapt_variance.assign(layer.adapt_variance * np.array(_IMAGENET_DEVIATION, np.float32))
            layer.finalize_state()


def _counted(layers: Sequence[str]) -> str:
    """How many layers there are, with the names of the first."""
    names = printed(", ".join(layers[:3])) + (", …" if len(layers) > 3 else "")
    return f"{len(layers)} ({names})" if layers else "none"


def _copy_by_path(own: Path, stored: Stored, new: Set[str]) -> _Fit:
    """Write what fits into a file of the network's own weights, which Keras then loads."""
    with h5py.File(own, "r+") as tree:
        ours = layers_by_path(tree)
        pairs = max(_ways(ours, stored.by_path), key=lambda way: _merit(ours, stored.by_path, way))
        pairs = {path: place for path, place in pairs.items() if ours[path].name not in new}
        for path, place in pairs.items():
            for key, array in stored.by_path[place].arrays.items():
                ours[path].arrays[key][...] = array[...]
    used = set(pairs.values())
    return _Fit(
        [(path, stored.by_path[place]) for path, place in pairs.items()],
        [path for path in ours if path not in pairs],
        [place for place in stored.by_path if place not in used],
    )


def _ways(ours: Mapping[str, StoredLayer], theirs: Mapping[str, StoredLayer]) -> list[dict[str, str]]:
    """The ways to pair our layers with theirs, by path: the same paths, those below our backbone, and names."""
    names = _unique_names(theirs)
    own_names = _unique_names(ours)
    ways = [
        {path: path for path in ours if path in theirs},
        {path: rest for path in ours if (rest := path.removeprefix("backbone/")) != path and rest in theirs},
        {own_names[name]: names[name] for name in own_names if name in names},
    ]
    return [{path: place for path, place in way.items() if ours[path].shapes == theirs[place].shapes} for way in ways]


def _unique_names(layers: Mapping[str, StoredLayer]) -> dict[str, str]:
    """The path of each layer whose name no other one has."""
    counts = Counter(layer.name for layer in layers.values())
    return {layer.name: path for path, layer in layers.items() if layer.name and counts[layer.name] == 1}


def _merit(
    ours: Mapping[str, StoredLayer], theirs: Mapping[str, StoredLayer], way: Mapping[str, str]
) -> tuple[int, int]:
    """How many weights fit, and how many of their layers have the same name."""
    weights = sum(int(np.prod(shape)) for path in way for shape in ours[path].shapes.values())
    return weights, sum(ours[path].name == theirs[place].name for path, place in way.items())


def _load_in_order(network: keras.Model, stored: Stored) -> _Fit:
    backbone = getattr(network, "backbone", None)
    target = backbone if isinstance(backbone, keras.Model) else network
    layers = [layer for layer in target.layers if layer.weights]
    theirs = [layer for layer in stored.in_order if layer.arrays]
    if len(layers) == len(theirs):
        paired = list(zip(layers, theirs, strict=True))
    else:
        names = {layer.name: layer for layer in theirs}
        paired = [(layer, names[layer.name]) for layer in layers if layer.name in names]
    pairs = [(layer, their) for layer, their in paired if _shapes_of(layer) == list(their.shapes.values())]
    for layer, their in pairs:
        for weight, array in zip(_weights_of(layer), their.arrays.values(), strict=True):
            weight.assign(array[...])
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    ours, used = {id(layer) for layer, _ in pairs}, {their.name for _, their in pairs}
    others = [layer for layer in network.layers if layer.trainable_weights] if target is backbone else []
    return _Fit(
        pairs,
        [layer.name for layer in [*layers, *others] if id(layer) not in ours and layer is not target],
        [layer.name for layer in theirs if layer.name not in used],
    )


def _weights_of(layer: keras.layers.Layer) -> list[Any]:
    """The weights in the order of the older form: what is trained comes first."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _shapes_of(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in _weights_of(layer)]
