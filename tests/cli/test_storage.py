"""`layerflow gc` and `layerflow store`."""

import json
import os
from pathlib import Path

import pytest

from tests.command import several


@pytest.mark.process
def test_the_store_is_shown_and_collected(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    store = tmp_path / "store"
    for age, name in ((1, "old"), (2**31, "young")):
        folder = store / "train_model" / name
        folder.mkdir(parents=True)
        (folder / "model.keras").write_text("x" * 1000)
        os.utime(folder, (age, age))
    commands = [
        *(["layerflow", "store"], ["layerflow", "store", "--json"], ["layerflow", "gc", "--dry_run"]),
        *(["layerflow", "gc", "--json"], ["layerflow", "gc"]),
        *(["layerflow", "gc", *wrong] for wrong in (["--max_size", "12XB"], ["--keep_days=-1"], ["--keep_runs", "x"])),
    ]
    shown, as_json, dry, collected, again, *refused = several(commands, store=store)
    assert "train_model" in shown[1]
    assert shown[1].endswith("gc would remove 1 of 2 items and free 1.0KB; 1.0KB would be left.\n")
    assert json.loads(as_json[1])["kinds"] == [
        {"name": "train_model", "items": 2, "bytes": 2000, "removed": 1, "freed": 1000}
    ]
    assert dry[1].endswith("gc would remove 1 of 2 items and free 1.0KB; 1.0KB would be left.\n")
    assert (json.loads(collected[1])["removed"], json.loads(collected[1])["dry_run"]) == (1, False)
    assert again[1] == "gc removed 0 of 1 items and freed 0B; 1.0KB are left.\n"
    assert [status for status, *_ in (shown, as_json, dry, collected, again)] == [0] * 5
    for (status, out, err), name in zip(refused, ("max_size", "keep_days", "keep_runs"), strict=True):
        assert (status, out) == (2, "")
        assert name in err
        assert err.count("\n") == 1
