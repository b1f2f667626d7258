"""Image files in the served graph: the pixels of training, bit by bit, or a refusal that says why."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from layerflow.data import decode, resize
from layerflow.export import graph_resize
from layerflow.export.image_bytes import pixels_of
from tests import image_files

pytestmark = pytest.mark.slow

Decode = Callable[[list[bytes]], np.ndarray]
SHAPES = {"colour": (32, 40, 3), "grey": (32, 40, 1)}
#: Heights and widths: odd, one pixel, larger and smaller than what is made of them, and its very size.
SIZES = [(1, 1), (17, 33), (32, 40), (90, 31)]


def graph_for(shape: tuple[int, int, int]) -> Decode:
    traced = tf.function(lambda files: pixels_of(files, shape), [tf.TensorSpec((None,), tf.string)], autograph=False)
    return lambda files: traced(tf.constant(files, tf.string, (len(files),))).numpy()


@pytest.fixture(scope="module")
def graphs() -> dict[str, Decode]:
    return {name: graph_for(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_graph_decodes_files_to_the_pixels_of_training(name: str, graphs: dict[str, Decode]) -> None:
    random = np.random.default_rng(0)
    differ = set()
    for kind, make in image_files.DECODED.items():
        sizes = SIZES[1:] if kind == "bmp-palette" else SIZES  # of one pixel it has one colour, which is refused
        files = [make(random, *size) for size in sizes]
        expected = [decode.read(file, SHAPES[name]) for file in files]
        differ |= set() if np.array_equal(graphs[name](files), expected) else {kind}
    assert not differ


def test_what_only_pillow_reads_is_refused_with_its_place_and_the_reason(graphs: dict[str, Decode]) -> None:
    random = np.random.default_rng(0)
    good = image_files.DECODED["png-rgb"](random, 20, 20)
    for make, reason in image_files.REFUSED.values():
        file = make(random, 20, 20)
        assert decode.read(file, SHAPES["colour"]).any()
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"\[image_bytes\] \[2\] \[{reason}"):
            graphs["colour"]([good, good, file])


def claims(kind: str, size: int) -> bytes:
    """A file of a hundred bytes or so that claims a side of ``size`` pixels."""
    file = bytearray(image_files.DECODED[kind](np.random.default_rng(0), 9, 9))
    small, big = struct.pack("<H", min(size, 2**16 - 1)) * 2, struct.pack(">I", size) * 2
    match kind:
        case "jpeg-420":
            at = file.index(b"\xff\xc0") + 5
            file[at : at + 4] = struct.pack(">H", min(size, 65_500)) * 2
        case "png-rgb":
            file[16:24] = big
        case "gif":
            file[6:10] = small
        case "bmp":
            file[18:26] = struct.pack("<I", size) * 2
        case "webp-rgba":
            file[21:25] = struct.pack("<I", 2**28 - 1)
    return bytes(file)


def test_a_small_file_that_claims_a_huge_image_is_refused_before_it_is_decoded(graphs: dict[str, Decode]) -> None:
    for kind in ("jpeg-420", "png-rgb", "gif", "bmp", "webp-rgba"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1 to 100,000,000 pixels"):
            graphs["colour"]([claims(kind, 200_000)])


def test_a_beginning_alone_is_refused(graphs: dict[str, Decode]) -> None:
    for content in (b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            graphs["colour"]([content])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged notes
def test_a_changed_file_never_becomes_other_pixels_than_training_makes_of_it(graphs: dict[str, Decode]) -> None:
    random, compared = np.random.default_rng(1), list[str]()
    kinds = ("jpeg-turned-6", "jpeg-xmp", "gif-frames", "bmp-palette", "webp")
    for kind in np.repeat(kinds, 40).tolist():
        file = bytearray(image_files.DECODED[kind](random, 20, 24))
        for at in random.integers(0, min(len(file), 150), random.integers(1, 4)):
            file[at] = random.choice([0, 1, 6, 8, 128, 255])
        try:
            expected = decode.read(bytes(file), SHAPES["colour"])
            found = graphs["colour"]([bytes(file)])[0]
        except (decode.BrokenImageError, tf.errors.InvalidArgumentError):
            continue
        assert np.array_equal(found, expected), f"{kind}: {bytes(file)!r}"
        compared.append(kind)
    assert set(compared) == set(kinds)


def test_an_empty_batch_gives_no_image(graphs: dict[str, Decode]) -> None:
    assert graphs["colour"]([]).shape == (0, *SHAPES["colour"])


def test_the_graph_resizes_as_training_does() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        before, (height, width) = random.integers(1, 90, 2), random.integers(1, 60, 2).tolist()
        image = random.integers(0, 256, (*before, 3), np.uint8)
        found = graph_resize.resized(tf.constant(image), height, width).numpy()
        np.testing.assert_array_equal(found, resize.resize(image, height, width))


def test_a_progressive_jpeg_without_its_last_scans_is_refused(graphs: dict[str, Decode]) -> None:
    """What is missing is guessed by libjpeg, and not the same by all of its versions."""
    whole = image_files.DECODED["jpeg-420-progressive"](np.random.default_rng(0), 64, 64)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    tables = whole.rindex(b"\xff\xc4", 0, scans[-1])
    for rest in (b"", whole[tables:]):
        cut = whole[:tables] + b"\xff\xd9" + rest
        assert decode.read(cut, SHAPES["colour"]).any()
        with pytest.raises(tf.errors.InvalidArgumentError, match="is a progressive JPEG without its last scans"):
            graphs["colour"]([cut])


def test_notes_after_the_end_of_a_webp_are_not_read(graphs: dict[str, Decode]) -> None:
    file = image_files.DECODED["webp-xmp"](np.random.default_rng(0), 20, 24)
    less = file[:4] + struct.pack("<I", file.index(b"XMP ") - 8) + file[8:]
    np.testing.assert_array_equal(graphs["colour"]([less])[0], decode.read(less, SHAPES["colour"]))
