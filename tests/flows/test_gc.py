"""The flow `gc`, on a real server."""

import os
from pathlib import Path

from flows.gc import gc
from layerflow.settings.gc import GcConfig
from tests.flows.test_retrain import cards_of


def test_it_collects_and_shows_what_went(server: None, empty_store: Path) -> None:
    old = empty_store / "train_model" / "old"
    old.mkdir(parents=True)
    (old / "model.keras").write_text("weights")
    os.utime(old, (1, 1))
    state = gc(GcConfig(), return_state=True)  # type: ignore[call-overload]  # Prefect's types forget return_state
    done = state.result()
    assert (done.removed, done.freed) == (1, len("weights"))
    assert not old.exists()
    (card,) = cards_of(state.state_details.flow_run_id).values()
    assert "gc removed 1 of 1 items and freed 7B; 0B are left." in card
    assert "layerflow retrain" not in card, "it is no run of `retrain`, with whose settings one could retrain"
