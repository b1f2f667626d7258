"""Which weights a run starts from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from layerflow import checksums
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, MirrorError, RegistryError
from layerflow.models.preset import read_preset
from layerflow.models.published import published
from layerflow.registry.first_weights import check, first_weights
from layerflow.registry.receipt import Challenger
from tests.layerflow.conftest import Decide
from tests.made_presets import change_config, write_preset

SIZE = (32, 32)


def config(weights: str, name: str = "mlp", **data: Any) -> RetrainConfig:
    return RetrainConfig.model_validate({"model": {"name": name, "weights": weights}, "data": data})


@pytest.fixture
def trained(contenders: dict[str, Challenger], session_store: Path, shelf: Path) -> None:
    """The trained networks are in the store, too."""
    for each in contenders.values():
        shutil.copytree(session_store / each.trained.folder, shelf / each.trained.folder)


def test_none_is_nothing() -> None:
    assert first_weights(config("none"), SIZE) is None
    assert check(config("none")) == "all new"


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("a.weights.h5", "b.weights.h5"):
        (tmp_path / name).write_bytes(b"weights")
    one, other = (first_weights(config(str(tmp_path / name)), SIZE) for name in ("a.weights.h5", "b.weights.h5"))
    assert one
    assert other
    digest = checksums.sha256(tmp_path / "a.weights.h5")
    assert one.model_dump() == other.model_dump() == {"digest": digest, "classes": None}
    assert one.file == tmp_path / "a.weights.h5"


@pytest.mark.parametrize("place", ["missing.keras", "~nobody-at-all/x.keras", f"{'x' * 300}.keras"])
def test_a_missing_file_is_one_sentence(place: str) -> None:
    with pytest.raises(ConfigError, match=r"model.weights must name a file. .* doesn't exist; correct the path"):
        first_weights(config(place), SIZE)


def test_without_a_live_version_there_is_no_champion(empty_store: Path) -> None:
    with pytest.raises(RegistryError, match=r"a live version of mlp-digits. None is published; publish the first one"):
        first_weights(config("champion"), SIZE)


def test_champion_is_the_live_version_and_changes_with_it(
    decide: Decide, trained: None, contenders: dict[str, Challenger]
) -> None:
    assert decide("poor").version == 1
    first = first_weights(config("champion"), SIZE)
    assert first
    assert (first.source, first.digest) == ("mlp-digits@1", contenders["poor"].trained.digest)
    assert first.classes == contenders["poor"].data.classes
    assert decide("good").version == 2
    second = first_weights(config("champion"), SIZE)
    assert second
    assert (second.source, second.digest) == ("mlp-digits@2", contenders["good"].trained.digest)
    assert second.file
    assert second.file.name == "model.keras"
    assert first_weights(config("mlp-digits@1"), SIZE) == first
    assert check(config("champion")) == f"mlp-digits@2, in {second.file}"


def test_a_version_that_is_not_there_is_one_sentence(decide: Decide, trained: None) -> None:
    decide("poor")
    with pytest.raises(RegistryError, match=r"must be one that is published \(1\). Received: 7"):
        first_weights(config("mlp-digits@7"), SIZE)
    with pytest.raises(RegistryError, match=r"must be one that is published \(none\)"):
        first_weights(config("cnn-cats@1"), SIZE)


def test_a_version_whose_network_is_gone_is_one_sentence(decide: Decide) -> None:
    decide("poor")
    with pytest.raises(RegistryError, match=r"version 1 of mlp-digits was exported from must be in .*; train it again"):
        first_weights(config("champion"), SIZE)


def test_a_version_that_was_changed_is_refused(decide: Decide, trained: None, shelf: Path) -> None:
    decide("poor")
    (shelf / "models" / "mlp-digits" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"must be as it was published: saved_model.pb was changed"):
        first_weights(config("champion"), SIZE)


def test_imagenet_is_known_by_the_published_digest_and_read_from_the_mirror(tmp_path: Path) -> None:
    file = published("VGG16", {}, SIZE)
    asked = config("imagenet", "applications:VGG16", mirror=str(tmp_path))
    found = first_weights(asked, SIZE)
    assert found
    assert (found.digest, found.license, found.file) == (file.digest, "CC-BY-4.0", tmp_path / "keras" / file.name)
    with pytest.raises(MirrorError, match=f"must hold {tmp_path}/keras/{file.name}, which is not there"):
        check(asked)
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / file.name).touch()
    assert check(asked) == f"{tmp_path}/keras/{file.name}, in the mirror"


def test_a_file_that_depends_on_the_size_of_the_images_is_not_guessed(tmp_path: Path) -> None:
    unknown = config("imagenet", "applications:MobileNetV2", mirror=str(tmp_path))
    assert check(unknown) == "a file for the size of the images, which data.image_size does not say"
    with pytest.raises(MirrorError, match=r"_1\.0_96_no_top\.h5, which is not there"):
        check(config("imagenet", "applications:MobileNetV2", mirror=str(tmp_path), image_size="96x96"))


def test_where_keras_has_no_digest_that_of_the_mirrors_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = published("MobileNetV2", {}, SIZE)
    place = tmp_path / "keras" / file.name
    place.parent.mkdir()
    place.write_bytes(b"weights")
    found = first_weights(config("imagenet", "applications:MobileNetV2", mirror=str(tmp_path)), SIZE)
    assert found
    assert found.digest == checksums.sha256(place)
    monkeypatch.delenv("LAYERFLOW_MIRROR", raising=False)
    without = first_weights(config("imagenet", "applications:MobileNetV2"), SIZE)
    assert without
    assert (without.digest, without.file) == (file.name, None)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The folder of a preset in a mirror."""
    pytest.importorskip("keras_hub", reason="KerasHub is not installed: make hub")
    return write_preset(tmp_path / "keras_hub" / "tiny")


def test_a_preset_of_the_mirror_is_known_by_what_it_says_and_its_weights(hub: Path, tmp_path: Path) -> None:
    first = first_weights(config("preset", "hub:tiny", mirror=str(tmp_path)), SIZE)
    assert first
    assert first.preset
    assert (first.source, first.file, first.preset.folder) == ("hub:tiny", hub / "model.weights.h5", hub)
    assert first.model_dump()["preset"] == {"digest": read_preset(hub).digest}
    assert first.digest == checksums.sha256(hub / "model.weights.h5")
    assert check(config("preset", "hub:tiny", mirror=str(tmp_path))) == f"the preset from {hub}, in the mirror"

    new = first_weights(config("none", "hub:tiny", mirror=str(tmp_path)), SIZE)
    assert new
    assert (new.digest, new.file, new.preset) == ("none", None, first.preset)
    assert check(config("none", "hub:tiny", mirror=str(tmp_path))) == f"all new; the preset from {hub}, in the mirror"

    change_config(hub, class_name="VGGBackbone", registered_name="keras_hub>VGGBackbone")
    changed = first_weights(config("none", "hub:tiny", mirror=str(tmp_path)), SIZE)
    assert changed
    assert changed.preset != new.preset


def test_without_a_mirror_a_preset_is_known_by_its_version_on_kaggle(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAYERFLOW_MIRROR", raising=False)
    found = first_weights(config("preset", "hub:resnet_18_imagenet"), SIZE)
    assert found
    assert found.preset
    assert found.digest == found.preset.digest
    assert found.digest.startswith("keras/resnetv1/keras/resnet_18_imagenet/")
    assert (found.file, found.preset.folder) == (None, None)


def test_the_mirror_must_hold_the_preset(hub: Path, tmp_path: Path) -> None:
    for ask in (check, lambda asked: first_weights(asked, SIZE)):
        with pytest.raises(MirrorError, match=f"must hold {tmp_path}/keras_hub/other/config.json, which is not there"):
            ask(config("none", "hub:other", mirror=str(tmp_path)))


def test_champion_is_the_network_of_the_preset_with_other_weights(
    hub: Path, tmp_path: Path, decide: Decide, trained: None
) -> None:
    decide("poor")
    asked = config("mlp-digits@1", "hub:tiny", mirror=str(tmp_path))
    found = first_weights(asked, SIZE)
    assert found
    assert found.preset
    assert (found.source, found.preset.folder) == ("mlp-digits@1", hub)
    assert check(asked) == f"mlp-digits@1, in {found.file}; the preset from {hub}, in the mirror"
