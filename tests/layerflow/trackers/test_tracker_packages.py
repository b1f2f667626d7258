"""What is said at the start of a run where something that a tracker needs is missing."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerflow import plugins
from layerflow.errors import ConfigError
from layerflow.trackers import packages


@pytest.fixture(autouse=True)
def _not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for tracker in ("mlflow", "wandb"):
        monkeypatch.delitem(sys.modules, f"layerflow.trackers.{tracker}", raising=False)


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        plugins.load("trackers", tracker)
    assert str(raised.value) == (
        f"extend.trackers {tracker} needs {tracker}, which is not installed; pip install 'layerflow[{tracker}]', or in "
        f"a clone: make {tracker}."
    )


def test_a_folder_of_the_name_of_a_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B makes one in the working folder if WANDB_DIR is not set."""
    (tmp_path / "runs_of_somebody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="which is not installed"):
        packages.require("wandb", "runs_of_somebody")


@pytest.mark.parametrize(
    ("tracker", "said"),
    [
        ("mlflow", "MLFLOW_TRACKING_URI, the address of the server, which is not set; set it, for example to http://"),
        ("wandb", "WANDB_DIR, the folder for its offline runs, which is not set; set it, for example to ~/runs."),
    ],
)
def test_a_missing_variable_is_named_with_an_example(tracker: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=name))
    monkeypatch.delenv(said.partition(",")[0], raising=False)
    with pytest.raises(ConfigError) as raised:
        plugins.load("trackers", tracker)
    assert str(raised.value).startswith(f"extend.trackers {tracker} needs {said}")
