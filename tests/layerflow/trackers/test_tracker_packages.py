"""What is said at the start of a run where something that a tracker needs is missing."""

import sys

import pytest

from layerflow import plugins
from layerflow.errors import ConfigError
from layerflow.trackers import packages


@pytest.fixture(autouse=True)
def _not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "layerflow.trackers.mlflow", raising=False)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        plugins.load("trackers", "mlflow")
    assert str(raised.value) == (
        "extend.trackers mlflow needs mlflow, which is not installed; pip install 'layerflow[mlflow]', or in a clone: "
        "make mlflow."
    )


def test_a_missing_address_is_named_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError) as raised:
        plugins.load("trackers", "mlflow")
    assert str(raised.value) == (
        "extend.trackers mlflow needs MLFLOW_TRACKING_URI, the address of the server, which is not set; set it, for "
        "example to http://127.0.0.1:5000."
    )
