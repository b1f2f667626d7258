"""The bar of a training among its run's artifacts."""

from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.records import Retrained
from tasks import progress


def bars(config: dict[str, Any]) -> list[float]:
    state = retrain(RetrainConfig.model_validate(config), return_state=True)
    assert state.is_completed()
    ours = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    chosen = ArtifactFilter(flow_run_id=ours, type=ArtifactFilterType(any_=["progress"]))
    with get_client(sync_client=True) as client:
        return [bar.data for bar in client.read_artifacts(artifact_filter=chosen)]


def test_training_is_a_bar_that_ends_full(first_run: Retrained) -> None:
    assert bars({"training": {"epochs": 2, "seed": 501}}) == [100.0]


def test_a_server_that_refuses_the_bar_does_not_stop_the_training(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    assert bars({"training": {"epochs": 2, "seed": 502}}) == []
