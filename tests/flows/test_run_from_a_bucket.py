"""Two machines and one bucket: what the first one made, the second one finds, and downloads what it reads."""

from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from layerflow.registry import versions
from layerflow.remote import bucket, mirror
from tasks import promote_model
from tests.flows.test_retrain import STEPS, task_runs
from tests.object_store import Proxy

CACHED = dict.fromkeys(STEPS, "Cached") | {"promote_model": "Unchanged"}


@pytest.fixture
def uploaded(first_run: Retrained, endpoint: Proxy) -> Retrained:
    """A run whose steps are cached uploads what they made."""
    return retrain(RetrainConfig())


@pytest.fixture
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine."""
    monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / "pod"))
    return tmp_path / "pod"


def run(config: RetrainConfig) -> Any:
    """The state of a run of the flow, in the store that is in force now."""
    return retrain.with_options(result_storage=store.root())(config, return_state=True)


def states_of(state: Any) -> dict[str, str]:
    return {name: run.state_name for name, run in task_runs(state.state_details.flow_run_id).items()}


def test_an_unchanged_run_with_an_empty_disk_is_cached_and_downloads_records_and_receipts_alone(
    uploaded: Retrained, empty_disk: Path, endpoint: Proxy
) -> None:
    before = len(endpoint.requests)
    state = run(RetrainConfig())
    assert states_of(state) == CACHED
    again = state.result()
    assert again.model_copy(update={"promotion": uploaded.promotion}) == uploaded
    assert again.promotion.version == uploaded.promotion.version
    read = [each for each in endpoint.requests[before:] if each.startswith("GET") and "list-type" not in each]
    endings = (".json", "SHA256SUMS", "leases/models-mlp-digits")
    assert read
    assert not [each for each in read if not each.endswith(endings)]
    assert not [file for file in empty_disk.rglob("*") if file.suffix in (".npy", ".keras", ".pb")]


def test_a_run_with_an_empty_disk_brings_what_it_reads_and_publishes_the_next_version(
    uploaded: Retrained, empty_disk: Path
) -> None:
    config = RetrainConfig.model_validate({"training": {"seed": 1, "epochs": 1}, "gate": {"force": "a test"}})
    state = run(config)
    states, made = states_of(state), state.result()
    assert [states[name] for name in STEPS[:3]] == ["Cached", "Cached", "Completed"]
    assert made.data == uploaded.data
    assert artifacts.sound(store.path(made.data.folder))
    assert (store.path(made.data.folder) / "result.json").is_file()
    live = uploaded.promotion.version
    assert live
    assert made.promotion.comparison.champion_version == live, "it was downloaded, and scored"
    assert made.promotion.version == live + 1
    lake = bucket.in_force()
    assert lake
    assert lake.size(f"models/mlp-digits/{live + 1}/saved_model.pb")


def test_a_run_goes_on_without_its_bucket_and_the_next_one_uploads(
    first_run: Retrained, endpoint: Proxy, empty_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the decision, which needs the versions of the other machines."""
    monkeypatch.setattr(promote_model, "retries", 0)  # they take half a minute
    endpoint.fail("503")
    config = RetrainConfig.model_validate({"training": {"epochs": 1}, "gate": {"force": "a test"}})
    state = run(config)
    assert state.is_failed()
    states = states_of(state)
    assert states == dict.fromkeys(STEPS, "Completed") | {"promote_model": "Failed"}
    assert "leases/models-mlp-digits, and it answered 503" in str(state.message)
    assert len(mirror.pending()) == 7
    endpoint.heal()
    again = run(config)
    assert states_of(again) == dict.fromkeys(STEPS, "Cached") | {"promote_model": "Promoted"}
    assert mirror.pending() == set()
    assert versions.numbers("mlp-digits") == [1]
