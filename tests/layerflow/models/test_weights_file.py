"""Files of weights, sound, damaged and hostile ones."""

import os
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from layerflow.errors import ConfigError
from layerflow.models import weights_file
from layerflow.models.weights_file import stored_in


def network() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(2)])


def read(file: Path) -> None:
    with stored_in(file) as stored:
        for layer in [*stored.by_path.values(), *stored.in_order]:
            for array in layer.arrays.values():
                array[...]


def refusal(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert "save it again" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_the_layers_have_their_paths_names_and_arrays(name: str, tmp_path: Path) -> None:
    made = network()
    made.save(tmp_path / name) if name == "model.keras" else made.save_weights(tmp_path / name)
    with stored_in(tmp_path / name) as stored:
        assert stored.in_order == []
        first = stored.by_path["layers/dense"]
        assert first.name == "first"
        assert first.shapes == {"0": (4, 3), "1": (3,)}
        np.testing.assert_array_equal(first.arrays["0"][...], made.layers[0].kernel)
        assert "layers/dense_1" in stored.by_path


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_what_is_no_file_of_weights_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"neither")
    assert str(tmp_path / name) in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_half_a_file_is_refused(name: str, tmp_path: Path) -> None:
    made = network()
    made.save(tmp_path / name) if name == "model.keras" else made.save_weights(tmp_path / name)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
    refusal(tmp_path / name)


def test_an_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "model.weights.h5" in refusal(tmp_path / "model.keras")


def test_a_compressed_archive_is_refused_for_it_may_be_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**6))
    assert "is compressed" in refusal(tmp_path / "model.keras")


def test_what_leads_out_of_the_file_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as tree:
        tree["vars/0"] = np.ones(3)
    ways = {
        "external link": lambda group: group.__setitem__("0", h5py.ExternalLink(str(secret), "/vars/0")),
        "soft link": lambda group: group.__setitem__("0", h5py.SoftLink("/layers")),
        "external numbers": lambda group: group.create_dataset("0", (3,), "f4", external=[(str(secret), 0, 12)]),
        "virtual": lambda group: group.create_virtual_dataset("0", _virtual(secret)),
    }
    for way, add in ways.items():
        file = tmp_path / f"{way}.weights.h5"
        with h5py.File(file, "w") as tree:
            add(tree.create_group("layers/dense/vars"))
        said = refusal(file)
        assert "leads to another place" in said or "in another file" in said, way


def _virtual(source: Path) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(source), "vars/0", shape=(3,))
    return layout


def test_groups_that_hold_each_other_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "loop.weights.h5"
    with h5py.File(file, "w") as tree:
        group = tree.create_group("a")
        group["again"] = group
    assert "more groups and arrays than any network" in refusal(file)


def test_chunks_larger_than_the_array_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_file, "_MOST_CHUNK", 1000)
    file = tmp_path / "chunks.weights.h5"
    with h5py.File(file, "w") as tree:
        tree.create_dataset("layers/dense/vars/0", (3,), "f4", chunks=(1000,), maxshape=(None,))
    assert "chunks larger than itself" in refusal(file)


def test_an_older_file_whose_names_lead_nowhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.weights.h5"
    with h5py.File(file, "w") as tree:
        tree.attrs["layer_names"] = [b"dense"]
        tree.create_group("dense").attrs["weight_names"] = [b"kernel:0"]
    assert "dense/kernel:0" in refusal(file)
