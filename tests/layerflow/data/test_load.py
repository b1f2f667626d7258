"""Loading through TFDS: real digits, and a mirror in place of the network."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from layerflow import artifacts, store
from layerflow.data import arrays, decode, load, own_sources, source_key, tfds_source
from layerflow.errors import ConfigError, DatasetError, MirrorError, UnreachableError
from layerflow.packed import PackedImages
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig
from tests import forked


def test_every_digit_is_in_exactly_one_split_with_its_own_label(digits: DatasetRef) -> None:
    assert digits.counts["train"] + digits.counts["validation"] == 1437
    assert digits.counts["test"] == 360
    reference = load_digits()
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(reference.images, reference.target, strict=True)
    )
    received = []
    for split in digits.counts:
        images, labels = arrays.images_and_labels(digits, split)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape == (digits.counts[split], *digits.image_shape)
        received += [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
    assert sorted(received) == expected


def test_arrays_are_memory_mapped(digits: DatasetRef) -> None:
    images, labels = arrays.images_and_labels(digits, "train")
    assert isinstance(images, PackedImages)
    assert all(isinstance(each, np.memmap) for each in (*images.packs, labels))


def test_loading_again_gives_the_same_bytes(digits: DatasetRef, empty_store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    again = load.load(DataConfig(), folder)
    assert again.digest == digits.digest
    assert again.test_digest == digits.test_digest


def test_validation_does_not_touch_test_and_keeps_its_images_when_it_grows(digits: DatasetRef) -> None:
    make = partial(load.load, DataConfig(validation_fraction=0.3))
    more = artifacts.make("load_data", "more", DatasetRef, make)
    assert more.test_digest == digits.test_digest
    before = {image.tobytes() for image in arrays.images_and_labels(digits, "validation")[0]}
    after = {image.tobytes() for image in arrays.images_and_labels(more, "validation")[0]}
    assert before < after
    # 1,437 draws at 0.3: three standard deviations are 52.
    assert abs(more.counts["validation"] - 0.3 * 1437) < 52


def test_a_fraction_that_leaves_no_validation_is_refused(empty_store: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must leave images on both sides"):
        load.load(DataConfig(validation_fraction=1e-9), tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnsit", "did you mean mnist"),
        ("mnist:9.9.9", "only: 3.0.1"),
        ("titanic", "must hold one image and one class label an example. It holds pclass"),
        ("imagenette", "must be uint8 and get one shape"),
    ],
)
def test_a_wrong_dataset_is_one_sentence(empty_store: Path, name: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        load.check(DataConfig(name=name))
    assert "\n" not in str(caught.value)


def test_a_mirror_that_lacks_a_file_or_holds_a_damaged_one_is_named(empty_store: Path, tmp_path: Path) -> None:
    config = DataConfig(name="mnist", mirror=tmp_path)
    with pytest.raises(MirrorError, match=r"mnist/\S+\.gz, which is not there"):
        load.check(config)
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{name}-ubyte.gz").write_bytes(b"no images")
    with pytest.raises(MirrorError, match=r"is damaged: expected SHA-256 [0-9a-f]{64}, received [0-9a-f]{64}"):
        load.check(config)


def test_without_network_it_fails_at_once_with_the_remedy(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UnreachableError, match=r"can't be reached .* set data.mirror"):
        load.check(DataConfig(name="mnist"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, as TensorFlow Datasets prepares them in a folder of its own."""
    home = tmp_path_factory.mktemp("prepared")
    import tensorflow_datasets as tfds

    tfds.builder("digits", data_dir=str(home)).download_and_prepare()
    return home


def flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


@pytest.mark.parametrize(
    ("files", "damage"),
    [
        ("*.tfrecord*", lambda content: content[: len(content) // 2]),
        ("*.tfrecord*", flipped),
        ("*.tfrecord*", lambda content: b"no records"),
        ("*.tfrecord*", None),
        ("dataset_info.json", lambda content: content[: len(content) // 2]),
        ("dataset_info.json", lambda content: b""),
        ("dataset_info.json", lambda content: b"null"),
        ("dataset_info.json", lambda content: b"\xff\xfe"),
        ("dataset_info.json", lambda content: b'{"splits": 3}'),
    ],
)
def test_a_damaged_dataset_of_others_is_one_sentence(
    files: str, damage: Callable[[bytes], bytes] | None, prepared: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(prepared, tmp_path / "home")
    found = sorted(home.rglob(files))
    assert found
    for file in found:
        file.write_bytes(damage(file.read_bytes())) if damage else file.unlink()
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(DatasetError, match=r"data\.data_dir") as caught:
        load.load(DataConfig(data_dir=str(home)), target)
    assert str(caught.value).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize(("file", "content"), [("label.labels.txt", b"\xff"), ("features.json", b"{")])
def test_a_file_that_tfds_does_not_need_changes_nothing(
    file: str, content: bytes, prepared: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(prepared, tmp_path / "home")
    loaded = []
    for target in (tmp_path / "before", tmp_path / "after"):
        target.mkdir()
        made = load.load(DataConfig(data_dir=str(home)), target)
        loaded.append((made.digest, made.classes, made.counts))
        (found,) = home.rglob(file)
        found.write_bytes(content)
    assert loaded[0] == loaded[1]
    assert loaded[0][1] == tuple(map(str, range(10)))


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff", b"3", b'{"a": 1}', b"[" * 100_000])
@pytest.mark.slow
def test_damaged_digests_of_a_prepared_dataset_make_it_again(content: bytes, empty_store: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = load.load(DataConfig(), tmp_path / "a")
    (digests,) = empty_store.glob("tfds/digits/.*.sha256.json")
    whole = digests.read_bytes()
    digests.write_bytes(content)
    (tmp_path / "b").mkdir()
    assert load.load(DataConfig(), tmp_path / "b").digest == before.digest
    assert json.loads(digests.read_bytes())["dataset_info.json"] == json.loads(whole)["dataset_info.json"]
    assert len(list(empty_store.glob("tfds/digits/.damaged-*"))) == 1


@pytest.mark.slow
def test_damaged_words_of_a_prepared_dataset_make_it_again(empty_store: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = load.load(DataConfig(), tmp_path / "a")
    (info,) = empty_store.glob("tfds/digits/*/dataset_info.json")
    info.write_bytes(b"{")
    (tmp_path / "b").mkdir()
    assert load.load(DataConfig(), tmp_path / "b").digest == before.digest
    assert len(list(empty_store.glob("tfds/digits/.damaged-*"))) == 1


@pytest.mark.process
def test_two_processes_prepare_a_dataset_once_and_leftovers_are_removed(empty_store: Path) -> None:
    """In processes of their own: a lock keeps processes apart."""
    leftover = empty_store / "tfds" / "digits" / "incomplete.ABC_1.0.0"
    leftover.mkdir(parents=True)
    processes = [
        forked.Popen([sys.executable, forked.PROGRAMS / "loads_digits.py", key], stdout=forked.PIPE, text=True)
        for key in "ab"
    ]
    answers = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert answers[0] == answers[1]
    assert not leftover.exists()


@pytest.mark.drill
def test_real_mnist_and_fashion_mnist_come_whole_from_the_mirror(
    real_datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERFLOW_STORE", str(real_datasets))
    first_labels = {"mnist": [], "fashion_mnist": []}
    for name in first_labels:
        made = artifacts.make("load_data", name, DatasetRef, lambda folder: pytest.fail("it is there"))
        assert made.counts["train"] + made.counts["validation"] == 60_000
        assert made.counts["test"] == 10_000
        counted = np.bincount(np.load(store.path(made.folder) / "test_labels.npy"))
        first_labels[name] = counted.tolist()
    # The class counts that the two datasets publish: neither has images of the other in it.
    assert first_labels["mnist"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert first_labels["fashion_mnist"] == [1000] * 10


BUILDER = """
import numpy as np
import tensorflow_datasets as tfds


class Stripes{number}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(num_classes=2)
        features = {{"image": image, "label": label}}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, manager):
        return {{"train": self._generate_examples()}}

    def _generate_examples(self):
        for index in range(60):
            image = np.random.default_rng(index).integers(0, {bright}, (8 + index % 3, 9, 3), np.uint8)
            yield index, {{"image": image, "label": index % 2}}
"""


@pytest.fixture
def stripes(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of the user's, in the working folder, that registers a dataset; the name of both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"stripes{abs(hash(request.node.name)) % 10**8}"  # TFDS registers a name once a process
    (tmp_path / f"{name}.py").write_text(BUILDER.format(number=name.removeprefix("stripes"), bright=200))
    return name


def made(config: DataConfig, folder: Path) -> DatasetRef:
    folder.mkdir()
    return load.load(config, folder)


def test_a_builder_of_the_users_with_images_of_several_sizes_and_no_test_split(stripes: str, tmp_path: Path) -> None:
    own = DataConfig(name=stripes, module=stripes)
    with pytest.raises(DatasetError, match=r"shape \(None, None, 3\); say which with --data.image_size"):
        load.check(own)
    sized = own.model_copy(update={"image_size": "8x8", "channels": 1})
    found = made(sized, tmp_path / "first")
    assert found.image_shape == (8, 8, 1)
    assert sum(found.counts.values()) == 60
    assert min(found.counts.values()) > 0
    assert "`test` after its bytes" in found.split_rule
    assert found.image_rule == decode.RULE
    assert made(sized, tmp_path / "again").digest == found.digest


def test_a_builder_whose_code_changed_is_another_and_prepares_anew(stripes: str, tmp_path: Path) -> None:
    own = DataConfig(name=stripes, module=stripes, image_size="8x8")
    before = source_key.key_content(own), tfds_source._data_dir(own)
    module = tmp_path / f"{stripes}.py"
    module.write_text(module.read_text().replace("200", "100"))
    assert source_key.key_content(own) != before[0]
    assert tfds_source._data_dir(own) != before[1]
    with pytest.raises(ConfigError, match=r"data.module must name .* No module nowhere"):
        source_key.key_content(own.model_copy(update={"module": "nowhere"}))


def test_a_package_that_declares_a_source_needs_no_module_in_the_settings(stripes: str, tmp_path: Path) -> None:
    about = tmp_path / "shop-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[layerflow.sources]\n{stripes} = {stripes}\nlost = nowhere\nodd = a b!\n")
    own_sources._declared.cache_clear()
    try:
        declared = DataConfig(name=stripes, image_size="8x8", channels=1)
        found = made(declared, tmp_path / "declared")
        assert found.digest == made(declared.model_copy(update={"module": stripes}), tmp_path / "named").digest
        before = source_key.key_content(declared)
        module = tmp_path / f"{stripes}.py"
        module.write_text(module.read_text().replace("200", "100"))
        assert source_key.key_content(declared) != before
        with pytest.raises(ConfigError, match=r"the entry point lost of layerflow.sources must name .* nowhere"):
            source_key.key_content(DataConfig(name="lost"))
        with pytest.raises(ConfigError, match=r"the entry point odd of layerflow.sources must name "):
            source_key.key_content(DataConfig(name="odd"))
    finally:
        own_sources._declared.cache_clear()


def test_a_prepared_folder_is_read_where_it_is_and_known_by_its_files(
    digits: DatasetRef, session_store: Path, tmp_path: Path
) -> None:
    theirs = DataConfig(name="digits", data_dir=str(session_store / "tfds"))
    assert made(theirs, tmp_path / "made").digest == digits.digest
    copied = shutil.copytree(session_store / "tfds", tmp_path / "tfds")
    copy = theirs.model_copy(update={"data_dir": str(copied)})
    before = source_key.key_content(copy)
    shard = next(copied.rglob("*train.tfrecord*"))
    os.utime(shard, (1, 1))
    assert source_key.key_content(copy) != before
    with pytest.raises(DatasetError, match=r"data.data_dir must hold digits/1.0.0 .* does not"):
        load.check(DataConfig(name="digits", data_dir=str(tmp_path / "nothing")))


@pytest.mark.slow
def test_prepared_data_that_were_damaged_are_set_aside_and_prepared_again(
    digits: DatasetRef, empty_store: Path, tmp_path: Path
) -> None:
    made(DataConfig(), tmp_path / "first")
    shard = next((empty_store / "tfds").rglob("*train.tfrecord*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert made(DataConfig(), tmp_path / "again").digest == digits.digest
    assert [each.name for each in shard.parent.parent.glob(".damaged-*")]


def test_a_version_that_does_not_exist_costs_no_look_at_what_is_prepared(empty_store: Path, tmp_path: Path) -> None:
    made(DataConfig(), tmp_path / "first")
    shard = next((empty_store / "tfds").rglob("*train.tfrecord*"))
    shard.write_bytes(b"no records")
    with pytest.raises(DatasetError, match=r"can't build 'digits:9\.9\.9'"):
        load.check(DataConfig(name="digits:9.9.9"))
    assert shard.exists(), "not its fault"


def test_records_that_a_builder_made_wrong_are_not_called_damaged(stripes: str, tmp_path: Path) -> None:
    module = tmp_path / f"{stripes}.py"
    text = module.read_text().replace('index, {"image": image', 'index, {"image": io.BytesIO(b"no image")')
    module.write_text(f"import io\n{text}")
    with pytest.raises(DatasetError, match=r"must make records that can be decoded. .*; correct its builder") as caught:
        made(DataConfig(name=stripes, module=stripes, image_size="8x8"), tmp_path / "made")
    assert "prepare it anew" not in str(caught.value)
    assert str(caught.value).isprintable()
