"""A folder of pictures from the command line: checked, trained, unchanged, grown, leaking."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.command import layerflow
from tests.shared import GRAPH

pytestmark = pytest.mark.usefixtures("on_the_server")
RETRAIN = ("retrain", "--json", "--training.compile", GRAPH["compile"], "--data.name", "folder", "--data.path")


def draw(root: Path, which: slice = slice(None), every_fifth_tests: bool = False) -> None:
    """Some of the digits as PNG files."""
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for number in range(len(pixels))[which]:
        split = "test" if every_fifth_tests and number % 5 == 0 else "train"
        file = root / split / str(digits.target[number]) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(file)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as PNG files, every fifth in test/."""
    root = tmp_path_factory.mktemp("folder") / "my digits"
    draw(root, every_fifth_tests=True)
    return root


@pytest.mark.process
def test_a_folder_is_trained_and_published_then_unchanged_then_says_what_is_new(pictures: Path, tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    command = (*RETRAIN, str(pictures))
    done = layerflow(*command, store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert (first["status"], first["version"], first["flow_run"]) == ("promoted", 1, "retrain-mlp-on-my-digits")
    assert first["accuracy"] >= 0.95
    again = json.loads(layerflow(*command, store=tmp_path / "store").stdout)
    assert again["status"] == "unchanged"
    assert {step["state"] for step in again["steps"].values()} == {"Cached", "Unchanged"}
    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(pictures / "train" / "3" / f"new-{number}.png")
    done = layerflow(*command, store=tmp_path / "store")
    grown = json.loads(done.stdout)
    assert "10 files added, 0 changed, 0 removed" in done.stderr
    assert grown["steps"]["train_model"]["state"] == "Completed"
    changed = {
        change["field"]: change["after"] - change["before"]
        for change in grown["changes"]
        if "counts" in change["field"]
    }
    assert sum(changed.values()) == 10
    assert {change["field"].partition(".")[0] for change in grown["changes"]} == {"data"}


@pytest.mark.drill
@pytest.mark.process
def test_a_folder_without_test_to_which_images_are_added_is_compared(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    draw(tmp_path / "photos", slice(1500))
    command = (*RETRAIN, str(tmp_path / "photos"))
    first = json.loads(layerflow(*command, store=tmp_path / "store").stdout)
    assert first["code"] == "promoted_first"
    draw(tmp_path / "photos", slice(1500, None))
    grown = json.loads(layerflow(*command, store=tmp_path / "store").stdout)
    found = grown["comparison"]
    assert found, grown["reason"]
    compared = sum(found[side] for side in ("both_right", "only_challenger", "only_champion", "both_wrong"))
    # No image of the first night moved from test to train: all of its test images are compared, and the new ones.
    assert compared == grown["test_examples"] == first["test_examples"] + found["new"]
    assert found["new"] > 0
    assert found["left_out"] == 0


@pytest.mark.process
def test_a_leaking_folder_is_shown_and_stopped_by_the_check_and_by_the_run(pictures: Path, tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    leaking = shutil.copytree(pictures, tmp_path / "leaking")
    for file in sorted(leaking.glob("test/*/*.png"))[::20]:  # one in twenty
        shutil.copy(file, leaking / "train" / file.parent.name / f"copy-of-{file.name}")
    flags = ("--data.name", "folder", "--data.path", str(leaking))
    sites = [f"test/{file.parent.name}/{file.name},{file.parent.name}" for file in leaking.glob("test/*/*.png")]
    (tmp_path / "slices.csv").write_text("\n".join(["file,site", *sites]))
    sliced = (*flags, "--data.slices", str(tmp_path / "slices.csv"))
    done = layerflow("data", "check", *sliced, store=tmp_path / "store")
    assert done.returncode == 2
    assert re.search(rf"site=3 +│ {len(list(leaking.glob('test/3/*.png')))} ", done.stdout)
    assert "18 of 360 test images (5.00%) are in train or validation too" in done.stdout
    card = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("card"))
    assert "**stop** | leakage" in Path(card).read_text()
    run = layerflow("retrain", *flags, store=tmp_path / "store")
    assert (run.returncode, run.stdout) == (2, "")
    sentence = run.stderr.splitlines()[-1]
    assert sentence.startswith("layerflow: The data of leaking must pass the checks. They do not: 18 of 360")
    assert "Traceback" not in run.stderr
    warned = layerflow("data", "check", "--json", *flags, "--checks.leakage", "warn", store=tmp_path / "store")
    assert warned.returncode == 0
    assert json.loads(warned.stdout)["findings"][0]["level"] == "warn"
