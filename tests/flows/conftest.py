"""Prefect servers that outlive a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from tests.servers import started, ui_started


@pytest.fixture(scope="session")
def first_run(first_run: Retrained, server: None) -> Retrained:
    """A run of the flow with its defaults, for which its steps find all that they would make."""
    from flows.retrain import retrain

    return retrain(RetrainConfig())


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`layerflow ui` on a free port, as `make ui` starts it, and the environment that reaches it."""
    with ui_started(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture
def guarded_server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that asks for a user and a password, and an environment that has neither."""
    with started(tmp_path, PREFECT_SERVER_API_AUTH_STRING="operator:secret") as environment:
        yield environment
