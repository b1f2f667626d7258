"""`layerflow data list`, `diff` and `export`."""

import json
from pathlib import Path

import pytest

from layerflow import artifacts
from layerflow.data.load import load
from layerflow.outcomes import Retrained
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig
from tests.command import several


@pytest.mark.process
def test_versions_are_listed_compared_and_written(first_run: Retrained, empty_store: Path, tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""

    def prepare(key: str, fraction: float) -> DatasetRef:
        config = DataConfig(validation_fraction=fraction)
        return artifacts.make("load_data", key, DatasetRef, lambda folder: load(config, folder))

    old, new = prepare("old", 0.05), prepare("new", 0.2)
    receipt = empty_store / "models" / "mlp-digits" / "1" / "assets.extra" / "receipt.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"data": {"folder": old.folder}}))
    target, digests = tmp_path / "written", (old.digest[:8], new.digest[:8])
    commands = (["list"], ["list", "--json"], ["diff", *digests], ["diff", *digests, "--json"])
    commands += (["export", digests[0], str(target)], ["export", digests[0], str(target)], ["diff", "zzzz", digests[1]])
    shown, as_json, compared, difference, written, again, unknown = several(
        [["layerflow", "data", *command] for command in commands], store=empty_store
    )
    assert old.digest[:12] in shown[1]
    listed = {each["digest"]: each for each in json.loads(as_json[1])}
    assert listed[old.digest]["models"] == ["mlp-digits 1"]
    assert listed[new.digest]["models"] == []
    assert listed[new.digest]["counts"] == new.counts
    moved = json.loads(difference[1])["moved"]
    assert moved == {"train → validation": new.counts["validation"] - old.counts["validation"]}
    assert f"{moved['train → validation']:,} moved: train → validation\n0 images added, 0 removed\n" in compared[1]
    assert written[1] == f"1,797 images of digits {old.digest[:12]} are in {target}\n"
    assert len(list(target.rglob("*.png"))) == 1797
    assert [status for status, *_ in (shown, as_json, compared, difference, written)] == [0] * 5
    for status, out, err in (again, unknown):
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
