"""The flow `rollback`, on a real server."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.rollback import rollback
from layerflow import registry
from layerflow.errors import RegistryError


def test_it_is_one_named_task_that_is_never_retried(server: None, empty_store: Path) -> None:
    state = rollback("nothing", return_state=True)
    assert state.is_failed()
    with pytest.raises(RegistryError, match="There is none"):
        state.result()
    with get_client(sync_client=True) as client:
        run_id = state.state_details.flow_run_id
        assert client.read_flow_run(run_id).name == "rollback-nothing"
        (task,) = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    assert task.name == "rollback-nothing"
    assert task.run_count == 1
    assert task.empirical_policy.retries == 0
    assert registry.names() == []
