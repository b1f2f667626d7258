"""YAML that a user gives: a mapping of plain values, or one sentence, in steps that grow with its length alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from layerflow import yaml_file
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, config_sentence, shown

FORM = "training: {epochs: 5}"


def read(text: str | bytes) -> dict[str, object]:
    return yaml_file.parse("config.yaml", text.encode() if isinstance(text, str) else text, FORM)


def test_plain_values_are_read() -> None:
    assert read("a: {b: [1, 2.5, true, null, text, '7']}\nc: |\n  two\n  lines\n") == {
        "a": {"b": [1, 2.5, True, None, "text", "7"]},
        "c": "two\nlines\n",
    }
    assert read("") == read("# nothing but a comment") == {}
    assert read("\ufeffa: é") == {"a": "é"}
    assert read("a: {b: 1}\n<<: [a]") == {"a": {"b": 1}, "<<": ["a"]}, "nothing is merged"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, this in zip("abcdefghij", "bcdefghijk", strict=True)
)
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "billion laughs": (LAUGHS, "line 1: no anchors (&a)"),
    "recursive anchor": ("a: &a [*a]", "no anchors (&a)"),
    "recursive anchor of it all": ("&a {a: *a}", "no anchors (&a)"),
    "alias": ("a: 1\nb: *nobody", "line 2: no aliases (*nobody)"),
    "endless anchor": (f"a: &{'b' * 60_000} 1", "no anchors"),
    "int tag": ("training: {epochs: !!int abc}", "no tags (!!int)"),
    "timestamp tag": ("a: !!timestamp abc", "no tags (!!timestamp)"),
    "binary tag": ("a: !!binary aGVsbG8=", "no tags (!!binary)"),
    "object tag": ("a: !!python/object/apply:os.system [id]", "no tags (!!python/object/apply:os.system)"),
    "own tag": ("a: !mine 1", "no tags (!mine)"),
    "endless tag": (f"a: !{'b' * 60_000} 1", "no tags"),
    "lists in lists": ("a: " + "[" * 30_000, "16 levels"),
    "mappings in mappings": ("{a: " * 10_000, "16 levels"),
    "lists under lists": ("- " * 30_000, "16 levels"),
    "keys in keys": ("? " * 30_000, "16 levels"),
    "5,000 digits": (f"a: {'9' * 5000}", "100 characters"),
    "5,000 hexadecimal digits": (f"a: 0x{'f' * 5000}", "100 characters"),
    "5,000 sixties": (f"a: 1{':59' * 5000}", "100 characters"),
    "no digits": ("a: 0b_", "must be YAML"),
    "too large": (b"a: 1 #" + b"x" * 2**20, "65,536 bytes"),
    "duplicate": ("a: 1\nb: 2\na: 3", "line 3: each name once, and not 'a' again"),
    "duplicate below": ("t: {a: 1, b: 2, 'a': 3}", "line 1: each name once, and not 'a' again"),
    "duplicate of many letters": (f"a: {{{'b' * 900}: 1, {'b' * 900}: 1}}", "each name once"),
    "number as a name": ("1: 2", "a name must be text"),
    "list as a name": ("[a]: 2", "a name must be text"),
    "mapping as a name": ("? {a: 1}\n: 2", "a name must be text"),
    "list": ("- 3", "must hold a mapping"),
    "long text": ("x" * 60_000, "must hold a mapping"),
    "word": ("false", "must hold a mapping"),
    "two documents": ("a: 1\n---\nb: 2", "must be YAML"),
    "unended": ("training: [", "must be YAML"),
    "control characters": (b"a: \x00", "must be YAML"),
    "no text": (b"\xff\xfe\x00", "must be text in UTF-8"),
    "another version of YAML": ("%YAML 9.9\n---\na: 1", "must be YAML"),
}


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many lines of Python are run: the same on any machine, however busy."""
    steps = [0]

    def count(frame: Any, event: str, argument: Any) -> Any:
        steps[0] += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield steps
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_one_sentence_in_steps_that_grow_with_its_length_alone(case: str) -> None:
    text, reason = HOSTILE[case]
    with counted() as steps, pytest.raises(ConfigError) as caught:
        read(text)
    # The most are 25 a byte, of a long tag. Lists in lists without their limit: 243 a byte.
    assert steps[0] < 20_000 + 50 * len(text)
    sentence = str(caught.value)
    assert reason in sentence
    assert sentence.startswith("config.yaml must ")
    assert sentence.isprintable()
    assert len(sentence) < 600


@pytest.mark.parametrize(
    "text",
    [
        "training: {epochs: 2020-13-45}",
        "training: {epochs: 2020-12-31}",
        f"training: {{epochs: {'x' * 50_000}}}",
        f"training: {{{'x' * 900}: 1}}",
        f"training: {{optimizer: [{'1, ' * 10_000}]}}",
        "model: {" + ", ".join(f"x{number}: 1" for number in range(4000)) + "}",
        f"data: {{path: '~{'x' * 50_000}', name: folder}}",
        f"model: {{name: {'x' * 50_000}}}",
        "registry: {name: 0x" + "f" * 90 + "}",
    ],
)
def test_an_odd_value_is_one_sentence_that_repeats_little_of_it(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate(read(text))
    sentence = config_sentence(caught.value)
    assert sentence.isprintable()
    assert max(map(len, sentence.split("Received: "))) < 600
    assert len(sentence) < 3000


@pytest.mark.parametrize(
    "value",
    [10**5000, "x" * 10**6, [[0] * 100] * 100, {"a\n" * 1000: "\udcff"}],
    ids=["number", "text", "lists", "surrogate"],
)
def test_what_is_shown_of_a_value_is_short_and_printable(value: object) -> None:
    text = shown(value)
    assert len(text) <= 200
    assert text.isprintable()


def test_a_short_value_is_shown_whole() -> None:
    assert shown({"a": [1, "two"]}) == "{'a': [1, 'two']}"


def test_a_deeply_nested_form_is_one_sentence() -> None:
    for form in ('{"a":' * 100_000, '{"a":' + "9" * 5000 + "}"):
        with pytest.raises(ValidationError) as caught:
            RetrainConfig.model_validate({"training": {"optimizer": form}})
        assert "a name or a JSON object" in config_sentence(caught.value)


def test_a_file_that_can_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none", tmp_path / "b\udcff\n"):
        with pytest.raises(ConfigError, match=r"--config must name a YAML file that can be read\.") as caught:
            yaml_file.read("--config", file, FORM)
        assert str(caught.value).isprintable()
    endless = Path("/dev/zero")
    with pytest.raises(ConfigError, match="65,536 bytes"):
        yaml_file.read("--config", endless, FORM)


_yaml_like = st.text(st.sampled_from("ab:{}[],&*!|>?-#%@'\"\\ \n\t0x1_.~<=é\x85"), max_size=60)


@given(st.one_of(st.binary(max_size=60), _yaml_like.map(str.encode)))
@example(b"? - : -")
@example(b"a: !<x> b")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_a_mapping_or_one_sentence(content: bytes) -> None:
    found: object = None
    sentence = ""
    try:
        found = yaml_file.parse("config.yaml", content, FORM)
    except ConfigError as error:
        sentence = str(error)
    assert isinstance(found, dict) or sentence.startswith("config.yaml must ")
    assert sentence.isprintable()
    assert len(sentence) < 600
