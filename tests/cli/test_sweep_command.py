"""`layerflow sweep` as people use it: in a process of its own."""

import json
from pathlib import Path

import pytest

from tests.command import layerflow, several


@pytest.mark.drill
@pytest.mark.process
def test_it_prints_one_json_object_with_the_trials_and_the_retraining(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    (tmp_path / "space.yaml").write_text(
        "training.learning_rate: {log_uniform: [1e-4, 1e-2]}\nmodel.shift: {int: [0, 1]}"
    )
    done = layerflow(
        *("sweep", "--json", "--trials", "1", "--training.epochs", "2", "--space", str(tmp_path / "space.yaml")),
        *("--over", "training.learning_rate: {log_uniform: [2e-3, 3e-3]}"),
        store=tmp_path / "store",
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (trial,) = answer["trials"]
    assert trial["settings"].keys() == {"training.learning_rate", "model.shift"}
    assert 0.002 <= trial["settings"]["training.learning_rate"] <= 0.003, "--over wins over the file"
    assert (answer["winner"], trial["state"], len(trial["curve"])) == (0, "complete", 2)
    assert answer["settings"]["training"] == {
        "epochs": 2,
        "learning_rate": trial["settings"]["training.learning_rate"],
    }
    assert (answer["status"], answer["version"]) == ("promoted", 1)
    assert answer["steps"]["promote_model"]["state"] == "Promoted"
    assert Path(answer["card"]).read_text().startswith("# Sweep: mlp-digits")


BAD_INPUT = {
    "unknown field": (["--over", "training.rate: {int: [1, 2]}"], "must be a setting of a run"),
    "no mapping": (["--over", "training.epochs"], "--over must hold a mapping such as `training.learning_rate:"),
    "no YAML": (["--over", "training.epochs: ["], "--over must be YAML"),
    "no file": (["--space", "/nonexistent.yaml"], "--space must name a YAML file that can be read"),
    "no trials": (["--trials", "0"], "--trials"),
    "monitor": (["--training.monitor", "loss"], "training.monitor must be a validation figure"),
}


@pytest.mark.process
def test_bad_input_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    commands = [["layerflow", "sweep", *arguments] for arguments, _ in BAD_INPUT.values()]
    for (_, reason), (status, out, err) in zip(
        BAD_INPUT.values(), several(commands, store=tmp_path / "store"), strict=True
    ):
        assert (status, out) == (2, "")
        assert reason in err
        assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()
