"""What an artifact was made of, and making one anew."""

from pathlib import Path

import pytest

from layerflow import artifacts, step_inputs, store
from layerflow.records import ModelRef


def made(key: str, inputs: dict[str, object], text: str = "x", anew: bool = False) -> ModelRef:
    def build(folder: Path) -> ModelRef:
        (folder / "model.keras").write_text(text)
        return ModelRef(name=text, digest=text, parameters=1)

    return artifacts.make("build_model", key, ModelRef, build, inputs, anew)


def test_the_nearest_inputs_are_those_with_the_fewest_differences(empty_store: Path) -> None:
    made("a", {"training": {"epochs": 5, "seed": 1}, "code": {"step.py": "1"}})
    made("b", {"training": {"epochs": 5, "seed": 2}, "code": {"step.py": "2"}})
    now = {"training": {"epochs": 6, "seed": 1}, "code": {"step.py": "1"}}
    nearest = step_inputs.nearest("build_model", now)
    assert nearest == {"training": {"epochs": 5, "seed": 1}, "code": {"step.py": "1"}}
    assert step_inputs.differences(nearest, now) == {"training.epochs": (5, 6)}
    assert step_inputs.nearest("train_model", now) is None


def test_differences_name_what_came_and_what_went() -> None:
    before, now = {"code": {"a.py": "1", "b.py": "1"}, "data": 1}, {"code": {"a.py": "1", "c.py": "1"}, "data": 1}
    assert step_inputs.differences(before, now) == {"code.c.py": (None, "1"), "code.b.py": ("1", None)}


def test_inputs_are_part_of_the_digested_record(empty_store: Path) -> None:
    made("a", {"training": {"epochs": 5}})
    record = empty_store / "build_model" / "a" / "record.json"
    record.write_text(record.read_text().replace('"epochs": 5', '"epochs": 6'))
    assert not artifacts.sound(record.parent)


def test_made_anew_takes_the_place_of_what_was_there(empty_store: Path) -> None:
    made("a", {})
    assert made("a", {}, "y").name == "x"
    assert made("a", {}, "y", anew=True).name == "y"
    assert (empty_store / "build_model" / "a" / "model.keras").read_text() == "y"
    assert [each.name for each in (empty_store / "build_model").iterdir()] == ["a"]


def test_a_build_anew_that_fails_leaves_what_was_there(empty_store: Path) -> None:
    made("a", {})

    def build(folder: Path) -> ModelRef:
        (folder / "model.keras").write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        artifacts.make("build_model", "a", ModelRef, build, {}, anew=True)
    assert artifacts.sound(empty_store / "build_model" / "a")


def test_what_a_killed_replacement_left_is_removed(empty_store: Path) -> None:
    made("a", {})
    (empty_store / "build_model" / "a").rename(empty_store / "build_model" / ".a.replaced")
    store.remove_leftovers()
    assert list((empty_store / "build_model").iterdir()) == []
