"""The flow `rollback`, on a real server."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.utilities.callables import parameter_schema

from cli.run import _by_hand
from flows.rollback import rollback
from layerflow.errors import RegistryError
from layerflow.registry import versions
from layerflow.settings.gate import RegistryConfig


def read(flow_run_id: Any) -> tuple[Any, Any]:
    """A flow run and its only task run."""
    with get_client(sync_client=True) as client:
        of_it = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        (task,) = client.read_task_runs(flow_run_filter=of_it)
        return client.read_flow_run(flow_run_id), task


def test_it_is_one_named_task_that_is_never_retried(server: None, empty_store: Path) -> None:
    state = rollback("nothing", return_state=True)
    assert state.is_failed()
    with pytest.raises(RegistryError, match="None is; run layerflow retrain"):
        state.result()
    run, task = read(state.state_details.flow_run_id)
    assert (run.name, run.tags) == ("rollback-nothing", [])
    assert task.name == "rollback-nothing"
    assert task.run_count == 1
    assert task.empirical_policy.retries == 0
    assert versions.names() == []


def test_a_run_by_hand_is_tagged_even_if_it_fails_and_its_tasks_are_not(server: None, empty_store: Path) -> None:
    state = _by_hand(rollback)("nothing", return_state=True)
    assert state.is_failed()
    run, task = read(state.state_details.flow_run_id)
    assert sorted(run.tags) == ["by-hand", "layerflow"]
    assert task.tags == []


def test_the_form_describes_and_bounds_its_fields() -> None:
    schema = parameter_schema(rollback.fn)
    name, to = schema.properties["name"], schema.properties["to"]
    assert name["description"]
    assert to["description"]
    assert to["anyOf"][0]["minimum"] == 1
    settings = RegistryConfig.model_json_schema()["properties"]["name"]["anyOf"][0]
    assert (name["pattern"], name["maxLength"]) == (settings["pattern"], settings["maxLength"])
