"""Random damage to everything that layerflow reads: never a traceback, never a wrong record, never a wrong model.

``LAYERFLOW_FUZZ`` is the number of cases in all (default 2,000; `make drill` runs 10,000).
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from layerflow import artifacts, checksums, store, yaml_file
from layerflow.config import RetrainConfig
from layerflow.data import image_folder, slices_csv
from layerflow.data.image_folder_layout import ImageFile
from layerflow.errors import LayerflowError, config_sentence
from layerflow.export.verifier.graph import check_graph
from layerflow.export.verifier.refusal import RefusedError
from layerflow.outcomes import Retrained
from layerflow.records import ModelRef
from layerflow.registry import layout, publishing, versions

CASES = int(os.environ.get("LAYERFLOW_FUZZ", "2000"))
NAME = "mlp-digits"
#: The longest sentence: a few settings of 200 characters each.
_LONGEST = 5000


def fuzzed(share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """This share of all cases, the same ones each time; a fixture is set up once for all of them."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=max(1, int(CASES * share)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=slow,
    )


def require_one_sentence(text: str) -> None:
    assert text.strip()
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < _LONGEST


def refused(action: Callable[[], Any]) -> Any:
    """What the action gives; nothing where it refuses in one sentence. Any other error fails the test."""
    try:
        return action()
    except ValidationError as error:
        require_one_sentence(config_sentence(error))
    except LayerflowError as error:
        require_one_sentence(str(error))
    return None


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "../..", "/etc/passwd", "\x00", "0" * 300, "1e999", "nan"]),
)
any_json = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Other bytes than ``content``: flipped, cut off, zeroed in the middle, repeated, or anything at all."""
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    length = draw(st.integers(1, 64))
    other = {
        "flip": content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :],
        "cut": content[:at],
        "zero": content[:at] + bytes(length) + content[at + length :],
        "repeat": content[:at] + content[at : at + length] + content[at:],
        "noise": draw(st.binary(max_size=64)),
    }[draw(st.sampled_from(["flip", "cut", "zero", "repeat", "noise"]))]
    return other if other != content else content + b"\x00"


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += _places(child, (*path, key))
    return found


@st.composite
def damaged_json(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with one value replaced or removed, or with other bytes."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    tree = json.loads(content)
    path = draw(st.sampled_from(_places(tree)))
    if not path:
        return json.dumps(draw(any_json)).encode()
    *above, last = path
    parent = tree
    for key in above:
        parent = parent[key]
    if draw(st.booleans()):
        parent.pop(last)
    else:
        parent[last] = draw(any_json)
    return json.dumps(tree).encode()


fields = [
    f"{group}.{name}"
    for group, of in RetrainConfig.model_fields.items()
    for name in of.annotation.model_fields  # type: ignore[union-attr]
]
fragments = st.sampled_from(
    ["&a ", "*a", "!!int ", "!!python/name:os.system ", "- ", "? ", "<<: ", "{", "[", "'", "|\n "]
)


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    """YAML of real settings with values of any kind; half the time with pieces of YAML put anywhere."""
    tree: dict[str, Any] = {}
    for field in draw(st.lists(st.sampled_from(fields), max_size=4)):
        group, name = field.split(".")
        tree.setdefault(group, {})[name] = draw(any_json)
    text = json.dumps(tree)
    for piece in draw(st.lists(fragments, max_size=3)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + piece + text[at:]
    return text.encode()


@fuzzed(0.35)
@given(content=configs() | st.binary(max_size=200))
@pytest.mark.slow
def test_any_config_file_is_a_config_or_one_sentence(content: bytes) -> None:
    def read() -> RetrainConfig:
        return RetrainConfig.model_validate(yaml_file.parse("config.yaml", content, "training: {epochs: 5}"))

    config = refused(read)
    if config is not None:  # it means what its own printed form means
        assert RetrainConfig.model_validate_json(config.model_dump_json()) == config


def _made(content: str) -> ModelRef:
    def build(target: Path) -> ModelRef:
        (target / "file").write_text(content)
        return ModelRef(name="mlp", digest="the digest", parameters=650)

    return artifacts.make("build_model", "key", ModelRef, build)


@fuzzed(0.2)
@given(data=st.data())
@pytest.mark.slow
def test_a_damaged_record_is_made_again_and_never_another_one(data: st.DataObject, empty_store: Path) -> None:
    shutil.rmtree(empty_store, ignore_errors=True)
    whole = _made("first")
    record = store.path(whole.folder) / "record.json"
    (record.with_name("result.json")).write_text("{}")
    damaged = data.draw(damaged_json(record.read_bytes()))
    same = _parsed(damaged) == json.loads(record.read_bytes())  # other white space, the same record
    record.write_bytes(damaged)
    found = artifacts.find("build_model", "key", ModelRef)
    assert found in (None, whole)
    again = _made("second")
    assert again == whole
    assert same or (store.path(again.folder) / "file").read_text() == "second"


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), value).save(stream, "PNG")
    return stream.getvalue()


def _jpeg(value: int) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).point(lambda pixel: pixel ^ value).save(stream, "JPEG")
    return stream.getvalue()


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    """Files of a folder of images: some whole, some damaged, with odd names and in odd places."""
    names = st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), min_size=1, max_size=6)
    classes = draw(st.lists(names.filter(lambda name: name not in (".", "..")), max_size=3, unique=True))
    files: dict[str, bytes] = {}
    for place in draw(st.lists(st.sampled_from(["train", "test", "", "valid"]), max_size=3)):
        for number, label in enumerate(classes):
            whole = draw(st.sampled_from([_png(number), _jpeg(number)]))
            content = whole if draw(st.booleans()) else draw(damaged_bytes(whole))
            kind = draw(st.sampled_from([".png", ".jpg", ".JPEG", ".txt", ""]))
            files[f"{place}/{label}/{number}{kind}".lstrip("/")] = content
    return files


@pytest.mark.slow
@fuzzed(0.1)
@given(files=trees())
def test_any_folder_of_images_is_read_or_refused_in_one_sentence(files: dict[str, bytes], empty_store: Path) -> None:
    root = empty_store.parent / "images"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in files.items():
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        except OSError:  # a name of two parts that the file system itself refuses
            continue

    def read() -> list[tuple[int, ...]]:
        listing = image_folder.scan(root)
        shape = image_folder.shape_of(listing, (8, 8), 1)
        broken: list[tuple[str, str]] = []
        shapes = [
            image.shape for split in ("train", "test") for image, *_ in image_folder.read(listing, split, shape, broken)
        ]
        image_folder.require_few_broken(listing, broken, 0.5)
        return shapes

    for shape in refused(read) or ():
        assert shape == (8, 8, 1)


_CSV = b'\xef\xbb\xbffile,camera,site\r\ntest/cat/1.png,left,Oslo\r\ntest/cat/2.png,"right, up",\r\n'


@fuzzed(0.1)
@given(content=damaged_bytes(_CSV) | st.binary(max_size=60) | st.text("file,\n\r\"'a/", max_size=60).map(str.encode))
def test_any_csv_of_slices_is_read_or_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "slices.csv"
    file.write_bytes(content)
    images = [ImageFile(f"test/cat/{number}.png", "test", "cat", "", None, "") for number in (1, 2, 3)]
    columns, found = refused(lambda: slices_csv.sliced(images, file)) or ((), [])
    for each in found:
        assert len(each.slices) == len(columns) > 0
        assert all(value.isprintable() for value in (*columns, *each.slices))


@pytest.fixture
def published(first_run: Retrained, session_store: Path, empty_store: Path) -> Path:
    """The store of the first run with its one published version, to be damaged."""
    home = Path("models") / NAME
    shutil.copytree(session_store / home, empty_store / home)
    return empty_store / home


@fuzzed(0.15)
@given(data=st.data())
def test_a_damaged_receipt_or_ledger_never_stops_the_listing(data: st.DataObject, published: Path) -> None:
    target = published / data.draw(st.sampled_from([".ledger.json", f"1/{layout.RECEIPT}"]))
    whole = target.read_bytes()
    target.write_bytes(data.draw(damaged_json(whole)))
    try:
        assert versions.names() == [NAME]
        assert versions.numbers(NAME) == [1]
        versions.complaints(NAME)
        versions.receipt_of(NAME, 1)
        assert versions.predecessor(NAME) is None
        assert refused(lambda: publishing.next_version(NAME)) != 1, "a number is never given twice"
    finally:
        target.write_bytes(whole)


@fuzzed(0.1)
@given(data=st.data())
def test_no_byte_of_an_export_can_change_and_be_published(data: st.DataObject, published: Path) -> None:
    version = published / "1"
    files = sorted(file for file in version.rglob("*") if file.is_file() and file != version / layout.RECEIPT)
    target = data.draw(st.sampled_from(files))
    whole = target.read_bytes()
    receipt = json.loads((version / layout.RECEIPT).read_text())
    target.write_bytes(data.draw(damaged_bytes(whole)))
    try:
        assert checksums.damage(version)
        # These are written anew.
        if target.name not in ("SHA256SUMS", "report.html", "images.npz", "README.md", "provenance.intoto.json"):
            assert refused(lambda: publishing.publish(NAME, 2, version, receipt)) is None
            assert versions.numbers(NAME) == [1]
    finally:
        target.write_bytes(whole)
        shutil.rmtree(published / "2", ignore_errors=True)


@fuzzed(0.1)
@given(data=st.data())
def test_any_graph_is_checked_or_refused_in_one_sentence(data: st.DataObject, published: Path) -> None:
    target = published / "1" / "saved_model.pb"
    whole = target.read_bytes()
    target.write_bytes(data.draw(damaged_bytes(whole)))
    try:
        check_graph(target.parent)
    except RefusedError as error:
        require_one_sentence(str(error))
    finally:
        target.write_bytes(whole)
