"""Records in the store that somebody edited: what ships must be what was computed.

Under a real Prefect server, whose `Cached` path reads ``result.json`` without asking the step.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from layerflow.records import Record

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def restored(first_run: Retrained, server: None) -> Iterator[None]:
    """The session's store with Prefect's records, which are as they were when the test is over."""
    retrain(RetrainConfig())
    files = [file for _, record in first_run if record for file in _records(record)]
    contents = {file: file.read_bytes() for file in files}
    yield
    for file, content in contents.items():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def _records(record: Record) -> list[Path]:
    folder = store.path(record.folder)
    return [folder / "record.json", folder / "result.json"] if record.folder else []


def swap_two_classes(record: dict[str, Any]) -> None:
    record["classes"][3], record["classes"][8] = record["classes"][8], record["classes"][3]


def praise(record: dict[str, Any]) -> None:
    record["accuracy"] = 0.9999


FORGERIES = pytest.mark.parametrize(
    ("step", "edit"), [("data", swap_two_classes), ("evaluation", praise)], ids=["classes", "accuracy"]
)


@FORGERIES
@pytest.mark.usefixtures("restored")
def test_prefects_record_that_was_edited_ships_nothing_of_it(first_run: Retrained, step: str, edit: Edit) -> None:
    record = getattr(first_run, step)
    _, result = _records(record)
    content = json.loads(result.read_text())
    value = json.loads(content["result"])
    edit(value["data"])
    result.write_text(json.dumps(content | {"result": json.dumps(value)}))
    again = retrain(RetrainConfig.model_validate({"gate": {"min_accuracy": 0.999}}))
    assert getattr(again, step) == record
    assert again.promotion.code == "unchanged"
    assert again.promotion.accuracy == first_run.promotion.accuracy


@FORGERIES
@pytest.mark.usefixtures("restored")
def test_both_records_that_were_edited_are_set_aside_and_made_again(
    first_run: Retrained, step: str, edit: Edit
) -> None:
    record = getattr(first_run, step)
    ours, result = _records(record)
    content, theirs = json.loads(ours.read_text()), json.loads(result.read_text())
    edit(content["record"])
    value = json.loads(theirs["result"]) | {"data": content["record"]}
    ours.write_text(json.dumps(content))
    result.write_text(json.dumps(theirs | {"result": json.dumps(value)}))
    again = retrain(RetrainConfig())
    assert getattr(again, step) == record
    assert again.promotion.code == "unchanged"
    assert list(ours.parent.parent.glob(f".damaged-{ours.parent.name}-*"))
