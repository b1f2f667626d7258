"""What the command line does around a flow."""

from types import SimpleNamespace

import pytest
from prefect import flow

from cli.run import _check_classes, _read_steps, _tasks_of
from layerflow.config import RetrainConfig
from layerflow.errors import DataError
from layerflow.registry import versions
from tasks.policy import as_task

first = as_task(lambda: 1, "first", "first", ())
second = as_task(lambda: 2, "second", "second", ())


@flow
def two_steps() -> str:
    first()
    second()
    return "done"


def test_the_states_of_a_flow_with_any_number_of_steps_are_read(server: None) -> None:
    state = two_steps(return_state=True)
    assert len(_tasks_of(two_steps, RetrainConfig())) == 2, (
        "it waits for so many runs, and not for one that never comes"
    )
    name, steps = _read_steps(two_steps, RetrainConfig(), state.state_details.flow_run_id)
    assert [(step, told["state"]) for step, told in steps.items()] == [("first", "Completed"), ("second", "Completed")]
    assert name, "the run has one, whatever Prefect calls it"


def test_a_class_that_is_gone_is_refused_before_there_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SimpleNamespace(classes=("cat", "dog"))
    monkeypatch.setattr(versions, "profile_in_service", lambda name: before)
    now = SimpleNamespace(classes=("cat",))
    with pytest.raises(DataError, match=r"that are gone: dog; restore them, .* or set checks"):
        _check_classes(RetrainConfig(), now)  # type: ignore[arg-type]
    lenient = RetrainConfig.model_validate({"checks": {"lost_class": "warn"}})
    _check_classes(lenient, now)  # type: ignore[arg-type]
    _check_classes(RetrainConfig(), before)  # type: ignore[arg-type]
