"""A folder of the user's own images: what is taken, what is refused, and how it is known."""

import io
import logging
import os
import resource
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from sklearn.datasets import load_digits

from layerflow import artifacts, store
from layerflow.data import decode, image_folder, source_key
from layerflow.data import load as data
from layerflow.data.arrays import images_and_labels
from layerflow.errors import DatasetError, FolderChangedError, heals
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def some(number: int, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


@pytest.fixture
def tree(tmp_path: Path, empty_store: Path) -> Path:
    """Forty grey images of 8x8 in train/ and twelve in test/, of two classes."""
    root = tmp_path / "pets"
    for split, count in (("train", 40), ("test", 12)):
        for number in range(count):
            file = root / split / ("cat", "dog")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(some(number + 1000 * (split == "test"))))
    return root


def load(root: Path, **settings: object) -> DatasetRef:
    image_folder.forget()
    step = store.root() / "load_data"
    step.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(dir=step))
    made = data.load(DataConfig.model_validate({"name": "folder", "path": root, **settings}), target)
    return made.model_copy(update={"folder": f"load_data/{target.name}"})


def arrays(made: DatasetRef, split: str) -> tuple[np.ndarray, np.ndarray]:
    return images_and_labels(made, split)


def test_the_digits_as_a_folder_of_pictures_are_the_digits(empty_store: Path, tmp_path: Path) -> None:
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        file = tmp_path / "digits" / ("test" if number % 5 == 0 else "train") / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image))
    made = load(tmp_path / "digits")
    assert made.classes == tuple("0123456789")
    assert made.image_shape == (8, 8, 1)
    assert made.counts["test"] == 360
    received = [
        (image.tobytes(), int(label))
        for split in made.counts
        for image, label in zip(*arrays(made, split), strict=True)
    ]
    assert sorted(received) == sorted(
        (image.tobytes(), int(label)) for image, label in zip(pixels, digits.target, strict=True)
    )


def test_without_a_test_folder_the_bytes_of_an_image_decide_and_stay_when_others_come(tree: Path) -> None:
    shutil.rmtree(tree / "test")
    before = load(tree)
    assert sum(before.counts.values()) == 40
    assert "`test` after its bytes" in before.split_rule
    for number in range(40, 60):
        (tree / "train" / "cat" / f"{number}.png").write_bytes(encoded(some(number)))
    after = load(tree)
    for split in before.counts:
        old, new = ({image.tobytes() for image in arrays(made, split)[0]} for made in (before, after))
        assert old <= new, split


def test_names_and_places_do_not_count_content_does(tree: Path) -> None:
    before = load(tree)
    (tree / "train" / "cat" / "0.png").rename(tree / "train" / "cat" / "another name\n é.png")
    os.utime(tree / "train" / "cat" / "2.png", (1, 1))
    moved = tree.rename(tree.with_name("elsewhere"))
    assert load(moved).digest == before.digest
    (moved / "train" / "dog" / "1.png").write_bytes(encoded(some(7777)))
    assert load(moved).digest != before.digest


def config(root: Path) -> DataConfig:
    return DataConfig(name="folder", path=root)


def test_the_identity_changes_with_a_file_and_only_then(tree: Path) -> None:
    before = source_key.key_content(config(tree))
    image_folder.forget()
    assert source_key.key_content(config(tree)) == before
    (tree / "train" / "cat" / "new.png").write_bytes(encoded(some(5)))
    image_folder.forget()
    assert source_key.key_content(config(tree)) != before


def test_only_what_changed_is_read_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long_ago = 1_700_000_000
    for file in tree.rglob("*.png"):
        os.utime(file, (long_ago, long_ago))
    image_folder.scan(tree)
    image_folder.forget()
    (tree / "test" / "cat" / "new.png").write_bytes(encoded(some(5)))
    (tree / "train" / "cat" / "0.png").write_bytes(encoded(some(6)))
    (tree / "train" / "cat" / "2.png").unlink()
    read: list[str] = []
    original = image_folder._look
    monkeypatch.setattr(
        image_folder, "_look", lambda root, file: (read.append(Path(file.path).name), original(root, file))[1]
    )
    with caplog.at_level(logging.INFO):
        image_folder.scan(tree)
    # Those that were made shortly before the index was written are looked at again, and are not new for that.
    assert {"0.png", "new.png"} <= set(read)
    assert "1 files added, 1 changed, 1 removed" in caplog.text


def age(root: Path, seconds: int) -> None:
    """As if the listing were made that much later than the files."""
    image_folder._RACY_NS, before = -seconds * 10**9, image_folder._RACY_NS
    try:
        image_folder.scan(root)
    finally:
        image_folder._RACY_NS = before


def test_files_that_change_places_are_seen_though_size_and_time_are_the_same(tree: Path) -> None:
    for file in tree.rglob("*.png"):
        file.write_bytes(encoded(some(int(file.stem)), compress_level=0))  # all of one size
        os.utime(file, (1, 1))
    age(tree, 1000)
    before = image_folder.scan(tree).digest
    one, other, aside = tree / "train/cat/0.png", tree / "train/dog/1.png", tree / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert image_folder.scan(tree).digest != before


def test_a_file_that_may_be_read_again_is_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file.suffix == ".png":
            raise PermissionError(13, "Permission denied")
        return original(file)

    with monkeypatch.context() as refused:
        refused.setattr(Path, "read_bytes", refuse)
        age(tree, 1000)
        with pytest.raises(DatasetError, match="52 of 52 files"):
            load(tree)
    assert sum(load(tree).counts.values()) == 52


def test_what_the_index_knows_it_knows_of_this_code(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tree, 1000)
    monkeypatch.setattr(decode, "look", lambda content: (9, 9, 3))
    monkeypatch.setattr(image_folder, "code_digest", lambda file: "another")
    assert {file.shape for file in image_folder.scan(tree).files} == {(9, 9, 3)}


def test_unchanged_files_are_not_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tree, 1000)
    monkeypatch.setattr(image_folder, "_look", lambda root, file: pytest.fail(f"{file.path} was read"))
    assert len(image_folder.scan(tree).files) == 52


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"{",
        lambda content: b"",
        lambda content: b"null",
        lambda content: b"[1, 2]",
        lambda content: b'{"train/cat/0.png": 3}',
        lambda content: b"\xff" * 100,
        lambda content: b"[" * 100_000,
        lambda content: content.replace(b"[8, 8, 1]", b"[9, 9, 3]"),
        lambda content: content.replace(b'"train/cat/0.png": [[', b'"train/cat/0.png": [["a", '),
        lambda content: content[: len(content) // 2],
    ],
)
def test_an_index_that_was_damaged_only_costs_time(
    damage: Callable[[bytes], bytes], tree: Path, empty_store: Path
) -> None:
    age(tree, 1000)
    before = image_folder.scan(tree)
    for index in (empty_store / "folders").iterdir():
        index.write_bytes(damage(index.read_bytes()))
    image_folder.forget()
    assert image_folder.scan(tree) == before


def test_what_the_index_gets_wrong_of_a_file_is_looked_at_again(tree: Path, empty_store: Path) -> None:
    age(tree, 1000)
    (index,) = (empty_store / "folders").iterdir()
    known = image_folder._read_index(index)
    known["train/cat/0.png"][1] = "0" * 64
    image_folder._write_index(index, known)
    with pytest.raises(FolderChangedError):
        load(tree)
    assert sum(load(tree).counts.values()) == 52, "or each try would believe it"


COLOUR = np.stack([np.full((8, 8), value, np.uint8) for value in (200, 100, 50)], axis=-1)
GREY = 124  # of COLOUR, by ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50
KINDS: dict[str, tuple[bytes, int, int]] = {  # file, grey value as one channel, tolerance
    "grey": (encoded(np.full((8, 8), 77, np.uint8)), 77, 0),
    "bilevel": (encoded(Image.new("1", (8, 8), 1)), 255, 0),
    "16 bits": (encoded(np.full((8, 8), 77 * 256 + 200, np.uint16)), 77, 0),
    "colour": (encoded(COLOUR), GREY, 1),
    "palette": (encoded(Image.fromarray(COLOUR).quantize(4)), GREY, 2),
    "transparent palette": (encoded(Image.fromarray(COLOUR).quantize(4), transparency=0), GREY, 2),
    "transparency": (encoded(Image.fromarray(COLOUR).convert("RGBA")), GREY, 1),
    "CMYK": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95), GREY, 6),
    "JPEG": (encoded(COLOUR, "JPEG", quality=95), GREY, 3),
    "BMP": (encoded(COLOUR, "BMP"), GREY, 1),
    "GIF": (encoded(Image.fromarray(COLOUR).quantize(4), "GIF"), GREY, 2),
    "WebP": (encoded(COLOUR, "WEBP", lossless=True), GREY, 1),
    "TIFF": (encoded(COLOUR, "TIFF"), GREY, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_what_the_rule_says(kind: str) -> None:
    content, value, tolerance = KINDS[kind]
    height, width, channels = decode.look(content)
    assert (height, width) == (8, 8)
    assert channels == (1 if kind in ("grey", "bilevel", "16 bits") else 3)
    grey = decode.read(content, (8, 8, 1))
    assert grey.dtype == np.uint8
    assert abs(grey.astype(int) - value).max() <= tolerance
    assert decode.read(content, (4, 6, 3)).shape == (4, 6, 3)


def test_a_photograph_is_turned_as_the_camera_was_held() -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    content = encoded(np.rot90(upright), "JPEG", exif=exif, quality=95)
    assert decode.look(content) == (8, 16, 1)
    assert abs(decode.read(content, (8, 16, 1))[..., 0].astype(int) - upright).max() < 10


def test_a_photograph_that_carries_a_second_one_is_turned_too() -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    first, second = Image.fromarray(np.ascontiguousarray(np.rot90(upright))), Image.new("L", (4, 4))
    content = encoded(first, "MPO", save_all=True, append_images=[second], exif=exif, quality=95)
    assert decode.look(content) == (8, 16, 1)
    assert abs(decode.read(content, (8, 16, 1))[..., 0].astype(int) - upright).max() < 10


#: A smooth picture with some noise, as photographs are: what is left after damage still decodes without an error.
PHOTO = Image.fromarray(some(0, (50, 75, 3))).resize((600, 400), Image.Resampling.BICUBIC)
KINDS_OF_JPEG: dict[str, bytes] = {
    "baseline": encoded(PHOTO, "JPEG"),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "optimized": encoded(PHOTO, "JPEG", optimize=True),
    "grey": encoded(PHOTO.convert("L"), "JPEG"),
    "grey progressive": encoded(PHOTO.convert("L"), "JPEG", progressive=True),
    "CMYK": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "CMYK progressive": encoded(PHOTO.convert("CMYK"), "JPEG", progressive=True),
    "RGB": encoded(PHOTO, "JPEG", keep_rgb=True),
    "4:4:4": encoded(PHOTO, "JPEG", subsampling=0),
    "4:2:2": encoded(PHOTO, "JPEG", subsampling=1),
    "restart markers": encoded(PHOTO, "JPEG", restart_marker_blocks=20),
    "quality 1": encoded(PHOTO, "JPEG", quality=1),
    "quality 100": encoded(PHOTO, "JPEG", quality=100),
}


@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_a_jpeg_that_libjpeg_would_repair_is_broken(kind: str) -> None:
    whole, shape = KINDS_OF_JPEG[kind], (400, 600, 3)
    middle, length = len(whole) // 2, len(whole)
    for damaged in (
        whole[:middle] + b"\xff\xd9",
        whole[: length * 9 // 10] + b"\xff\xd9",
        whole[:middle] + bytes(1024) + whole[middle + 1024 :],
        whole[:middle] + bytes(length - middle - 2) + b"\xff\xd9",
    ):
        Image.open(io.BytesIO(damaged)).load()  # which Pillow reads without a word
        with pytest.raises(decode.BrokenImageError, match=r"(?i)corrupt|premature"):
            decode.read(damaged, shape)


@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_a_whole_jpeg_is_read_whatever_its_kind_and_what_is_around_its_pixels(kind: str) -> None:
    whole, shape = KINDS_OF_JPEG[kind], (400, 600, 3)
    pixels = decode.read(whole, shape)
    foreign_jfif = whole[:2] + b"\xff\xe0\0\x10JFIF\0\x09\1\0\0\1\0\1\0\0" + whole[2:]
    for same in (whole + bytes(1000), whole + b"a comment" * 99, whole + whole, whole[:-2] + b"\xff\xff\xff\xd9"):
        assert (decode.read(same, shape) == pixels).all()
    assert decode.read(foreign_jfif, shape).shape == shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_a_jpeg_has_the_pixels_that_pillow_decodes(kind: str, channels: int) -> None:
    image = Image.open(io.BytesIO(KINDS_OF_JPEG[kind]))
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(400, 600, channels)
    assert (decode.read(KINDS_OF_JPEG[kind], (400, 600, channels)) == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_each_way_to_hold_a_camera_is_turned_as_pillow_turns_it(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PHOTO, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    shape = decode.look(content)
    assert shape == (upright.height, upright.width, 3)
    pixels = decode.read(content, shape)
    assert (pixels == np.asarray(upright)).all()
    assert pixels.flags.c_contiguous, "or its bytes could not be hashed and written"


def test_a_whole_jpeg_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = simplejpeg.decode_jpeg, []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given: (calls.append(given), original(*given))[1])
    monkeypatch.setattr(JpegImageFile, "load", lambda image: pytest.fail("Pillow decodes it too"))
    assert decode.read(KINDS_OF_JPEG["baseline"], (50, 75, 3)).shape == (50, 75, 3)
    assert len(calls) == 1


def test_damage_is_seen_behind_an_oddity_of_the_header() -> None:
    whole = KINDS_OF_JPEG["baseline"]
    profile = b"\xff\xe2\0\x14ICC_PROFILE\0\x09\x01abcd"  # part 9 of 1
    odd = whole[:2] + profile + whole[2:]
    assert decode.read(odd, (400, 600, 3)).shape == (400, 600, 3)
    with pytest.raises(decode.BrokenImageError, match="premature end of data segment"):
        decode.read(odd[: len(odd) // 2] + b"\xff\xd9", (400, 600, 3))


def test_a_tiff_on_its_side_is_turned_once() -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(np.ascontiguousarray(np.rot90(upright)), "TIFF", exif=exif)
    assert decode.look(content) == (8, 16, 1)
    assert (decode.read(content, (8, 16, 1))[..., 0] == upright).all()


def test_resizing_averages_what_it_leaves_out() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = decode.read(encoded(stripes), (8, 8, 1))
    assert abs(small.astype(int) - 127).max() < 20, "without antialiasing it would be black or white"


def test_images_of_several_sizes_need_a_size_and_get_it(tree: Path) -> None:
    (tree / "train" / "cat" / "big.png").write_bytes(encoded(some(3, (20, 30, 3))))
    with pytest.raises(DatasetError, match=r"holds 2 sizes: 8x8 \(52\), 20x30 \(1\); set --data.image_size"):
        load(tree)
    made = load(tree, image_size="10x12")
    assert made.image_shape == (10, 12, 3), "one of them is in colour"
    assert load(tree, image_size="10x12", channels=1).image_shape == (10, 12, 1)
    assert made.image_rule == decode.RULE


def rename_class(root: Path, name: str) -> None:
    (root / "train" / "cat").rename(root / "train" / name)
    (root / "test" / "cat").rename(root / "test" / name)


def huge() -> bytes:
    """A PNG of a few bytes that claims 30,000 x 30,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    head = (30_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def deep(root: Path, name: str, levels: int) -> None:
    """Folders in each other, made one by one: their path may be longer than the system takes."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def add(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / "train" / "cat" / name).write_bytes(content) and None


JPEG = encoded(some(1, (64, 64, 3)), "JPEG")
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"must be a folder with train/<class>/.* does not exist"),
    "empty folder": (lambda root: (shutil.rmtree(root), root.mkdir()), r"holds no folder"),
    "no train": (lambda root: shutil.rmtree(root / "train"), r"must hold train/<class>/ .* holds test"),
    "another split": (lambda root: (root / "val").mkdir(), r"holds test, train, val"),
    "one class only": (
        lambda root: [shutil.rmtree(root / split / "dog") for split in ("train", "test")],
        r"at least two folders, one for each class. It holds cat",
    ),
    "class without images": (lambda root: (root / "train" / "bird").mkdir(), r"train/bird has none"),
    "class that only test has": (
        lambda root: shutil.copytree(root / "test" / "cat", root / "test" / "bird"),
        r"bird is not",
    ),
    "file beside the classes": (add("../x.png", encoded(some(1))), r"It holds the file x\.png"),
    "a text called .png": (add("a.png", b"hello"), r"1 of 53 files .*: train/cat/a\.png \(no image\)"),
    "empty file": (add("a.png", b""), r"train/cat/a\.png \(empty\)"),
    "no image at all": (
        lambda root: [file.write_bytes(b"hello") for file in root.rglob("*.png")],
        r"52 of 52 files in .* can't be read: test/cat/0\.png \(no image\)",
    ),
    "truncated JPEG": (add("a.jpg", JPEG[: len(JPEG) // 2]), r"a\.jpg \(premature end of JPEG file\)"),
    "JPEG with an end marker after half of it": (
        add("a.jpg", JPEG[: len(JPEG) // 2] + b"\xff\xd9"),
        r"a\.jpg \(corrupt JPEG data: premature end of data segment\)",
    ),
    "a line of a million pixels": (
        add("a.png", encoded(Image.new("1", (1_000_001, 1)))),
        r"a\.png \(1 x 1,000,001 pixels, more than 1,000,000 on a side\)",
    ),
    "30,000 x 30,000": (add("a.png", huge()), r"a\.png \(more than 100,000,000 pixels\)"),
    "without a range": (add("a.tif", encoded(Image.new("F", (8, 8)), "TIFF")), r"a\.tif \(numbers without a fixed"),
    "link to nothing": (lambda root: (root / "train/cat/a.png").symlink_to("gone"), r"a\.png \(a link to nothing\)"),
    "link to itself": (lambda root: (root / "train/cat/a.png").symlink_to("a.png"), r"a\.png \(a link to nothing\)"),
    "a pipe": (lambda root: os.mkfifo(root / "train/cat/a.png"), r"a\.png \(no regular file\)"),
    "symlink loop": (
        lambda root: (root / "train/cat/loop").symlink_to(root / "train"),
        r"must not lead back to a folder above it",
    ),
    "symlink loop beside the classes": (
        lambda root: (root / "train/loop").symlink_to("loop"),
        r"and nothing else. It holds the file loop",
    ),
    "newline in a file's name": (add("a\nb.png", b"hello"), r"'train/cat/a\\nb\.png' \(no image\)"),
    "newline in a class's name": (lambda root: rename_class(root, "c\nat"), r"must be printable text. .*'c\\nat'"),
    "folders in each other": (
        lambda root: deep(root / "train/cat", "d", 100),
        r"at most 50 folders deep",
    ),
    "names too long together": (
        lambda root: deep(root / "train/cat", "d" * 200, 30),
        r"must be a folder that can be listed.* [Ff]ile name too long",
    ),
    "a folder that may not be listed": (lambda root: None, r"dog must be a folder that can be listed.*[Pp]ermission"),
    "classes that differ by case": (
        lambda root: shutil.copytree(root / "train/cat", root / "train/Cat"),
        r"more than upper and lower case. .* holds Cat and cat",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_sentence(case: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, reason = BAD[case]
    spoil(tree)
    if case == "a folder that may not be listed":  # a double: the suite may run as root, who may list everything
        original = os.scandir

        def refuse(path: str | Path) -> object:
            if Path(path) == tree / "train" / "dog":
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=reason) as caught:
        load(tree, image_size="8x8")
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file.name == "0.png":
            raise PermissionError(13, "Permission denied")
        return original(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)  # the suite may run as root, who may read everything
    with pytest.raises(DatasetError, match=r"0\.png \(permission denied\)"):
        load(tree)


@pytest.mark.parametrize("name", ["Café crème", "猫", "a b  c"])
def test_unicode_and_spaces_in_names_are_fine(name: str, tree: Path) -> None:
    rename_class(tree, name)
    assert name in load(tree).classes


def test_all_broken_images_are_named_and_left_out_under_the_stated_share(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(25):
        (tree / "train" / "cat" / f"broken-{number}.jpg").write_bytes(JPEG[:-200] if number % 2 else b"hello")
    with pytest.raises(DatasetError, match=r"25 of 77 files .* and 5 more, which the log names"):
        load(tree, max_broken=0.2, image_size="8x8")
    caplog.clear()
    made = load(tree, max_broken=0.4, image_size="8x8")
    assert made.broken == 25
    assert sum(made.counts.values()) == 52
    for number in range(25):
        assert f"broken-{number}.jpg" in caplog.text


def test_other_files_are_left_out_and_named(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("mine")
    (tree / "train" / "cat" / ".DS_Store").write_text("not mine")
    assert sum(load(tree).counts.values()) == 52
    assert "1 files that are not named as images are left out: train/cat/notes.txt" in caplog.text


def test_a_folder_that_changes_while_it_is_read_is_an_error_that_heals(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = image_folder.scan(tree)
    (tree / "train" / "cat" / "0.png").write_bytes(encoded(some(9)))
    monkeypatch.setitem(image_folder._listings, tree, listing)
    target = tree.with_name("changed")
    target.mkdir()
    with pytest.raises(FolderChangedError, match=r"0\.png changed meanwhile") as caught:
        data.load(config(tree), target)
    assert heals(caught.value)
    image_folder.forget()
    assert sum(load(tree).counts.values()) == 52, "the next try lists it anew"


def test_a_full_disk_leaves_nothing_and_does_not_heal(tree: Path, empty_store: Path) -> None:
    def make() -> DatasetRef:
        return artifacts.make("load_data", "full", DatasetRef, lambda target: data.load(config(tree), target))

    image_folder.scan(tree)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file: what a full disk looks like to a writer
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            make()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not heals(caught.value)
    assert not (empty_store / "load_data" / "full").exists()
    assert sum(make().counts.values()) == 52, "with room, the next try makes it"


def test_how_far_reading_is_stands_in_the_log(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(data, "_PROGRESS_SECONDS", -1.0)
    with caplog.at_level(logging.INFO):
        load(tree)
    assert "read 40 of 40 images of train" in caplog.text


def test_a_split_that_leaves_no_images_is_refused(tree: Path) -> None:
    shutil.rmtree(tree / "test")
    with pytest.raises(DatasetError, match=r"data.test_fraction must leave images on both sides"):
        load(tree, test_fraction=1e-9)


@pytest.mark.parametrize(
    "settings", [{"name": "folder"}, {"name": "mnist", "path": "x"}, {"name": "folder", "path": "x", "module": "m"}]
)
def test_path_goes_with_folder_and_with_nothing_else(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"data\.(path|module)"):
        DataConfig.model_validate(settings)


def test_reading_a_large_folder_says_how_far_it_is(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, empty_store: Path
) -> None:
    monkeypatch.setattr(image_folder, "_PROGRESS_SECONDS", -1.0)
    caplog.set_level("INFO", "layerflow")
    image_folder.scan(tree)
    total = len([file for file in tree.rglob("*") if file.is_file()])
    assert f"{total:,} of {total:,} new files read" in caplog.text
