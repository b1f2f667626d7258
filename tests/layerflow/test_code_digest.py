"""The code that a step runs, as digests."""

import shutil
from pathlib import Path

import pytest

from layerflow import code_digest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("load_data", "validate_data", "build_model", "train_model", "evaluate_model", "export_model", "verify_export")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project of two rooms, where a step reaches ``used`` through a function's own import."""
    for room in ("layerflow", "layers", "tasks"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("")
    (tmp_path / "layerflow" / "used.py").write_text("from layers import Deep\nX = 1  # a comment\n")
    (tmp_path / "layers" / "__init__.py").write_text("from layers.deep import Deep\nfrom layers.other import Other\n")
    (tmp_path / "layers" / "deep.py").write_text("class Deep:\n    Y = 1\n")
    (tmp_path / "layers" / "other.py").write_text("class Other:\n    Y = 1\n")
    (tmp_path / "layerflow" / "unused.py").write_text("Z = 1\n")
    (tmp_path / "tasks" / "step.py").write_text("def step():\n    from layerflow.used import X\n")
    monkeypatch.setattr(code_digest, "_ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of layerflow, whose code is that of the steps while the test runs."""
    for room in ("layerflow", "layers", "tasks"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "_ROOT", tmp_path)
    return tmp_path


def digest(module: str = "tasks.step") -> str:
    return code_digest.code_digest(module)


def digests() -> dict[str, str]:
    """Of each step, and of each network."""
    networks = [f"layerflow.models.{name}" for name in ("mlp", "cnn", "resnet", "vit")]
    return {name.rpartition(".")[2]: digest(name) for name in [*(f"tasks.{step}" for step in STEPS), *networks]}


def changed(before: dict[str, str]) -> set[str]:
    return {name for name, now in digests().items() if now != before[name]}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    write(file, text.replace(old, new))


def write(file: Path, text: str) -> None:
    """Write a file of code, and forget what was known of it."""
    file.write_text(text)
    for known in (code_digest._parsed, code_digest._digest, code_digest._reached):
        known.cache_clear()


@pytest.mark.parametrize("file", ["layerflow/used.py", "layers/deep.py"])
def test_a_change_in_code_that_the_step_reaches_changes_it(project: Path, file: str) -> None:
    before = digest()
    edit(project / file, "1", "2")
    assert digest() != before


@pytest.mark.parametrize("file", ["layerflow/unused.py", "layers/other.py"])
def test_code_that_the_step_does_not_reach_leaves_it(project: Path, file: str) -> None:
    before = digest()
    edit(project / file, "1", "2")
    assert digest() == before


def test_a_comment_and_the_policy_of_the_task_leave_it(project: Path) -> None:
    before = digest()
    edit(project / "layerflow" / "used.py", "X = 1  # a comment", "\n\nX = 1")
    edit(project / "tasks" / "step.py", "import X\n", "import X\n    retries = 5\n")
    assert digest() == before


TOLD = '''
"""A module."""
from typing import TYPE_CHECKING
from pydantic import BaseModel, Field
if TYPE_CHECKING:
    from layerflow import unused

class Settings(BaseModel):
    """Settings."""
    epochs: int = Field(5, description="How many.")

def check(value: int) -> int:
    """Check it."""
    log.info("checking %d", value)
    if value < 0:
        raise ValueError(f"It must not be negative. Received: {value}")
    return value
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A module.", "Another module."),
        ("Settings.", "The settings."),
        ("How many.", "Most epochs."),
        ("Check it.", "See that it is right."),
        ("value: int) -> int", "value: float) -> float"),
        ("checking %d", "looking at %d"),
        ("It must not be negative. Received: {value}", "Expected 0 or more, received {value}; raise it"),
        ("from layerflow import unused", "from layerflow import used"),
    ],
)
def test_what_only_people_read_does_not_count(project: Path, old: str, new: str) -> None:
    used = project / "layerflow" / "used.py"
    write(used, TOLD)
    before = digest()
    edit(used, old, new)
    assert digest() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Field(5", "Field(6"),
        ("epochs: int", "epochs: float"),
        ("ValueError", "TypeError"),
        ("value < 0", "value < 1"),
        ("return value", 'return "a text"'),
    ],
)
def test_what_the_step_executes_counts(project: Path, old: str, new: str) -> None:
    used = project / "layerflow" / "used.py"
    write(used, TOLD)
    before = digest()
    edit(used, old, new)
    assert digest() != before


def test_it_is_the_same_in_another_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    other = project.with_name(f"{project.name}-other")
    shutil.copytree(project, other)
    monkeypatch.setattr(code_digest, "_ROOT", other)
    assert digest() == before


def test_a_docstring_and_an_error_message_of_layerflow_change_no_step(copy: Path) -> None:
    before = digests()
    edit(copy / "layerflow" / "training" / "engine.py", '"""The training loop itself', '"""The loop of training')
    edit(copy / "layerflow" / "training" / "session.py", "The loss must stay finite.", "The loss has to stay finite.")
    assert changed(before) == set()


def test_an_edit_of_the_reading_of_data_trains_nothing_anew(copy: Path) -> None:
    before = digests()
    edit(copy / "layerflow" / "data" / "load.py", "_PROGRESS_EXAMPLES = 100", "_PROGRESS_EXAMPLES = 200")
    edit(
        copy / "layerflow" / "data" / "image_folder.py",
        "_PART, _PART_BYTES = 32, 2**22",
        "_PART, _PART_BYTES = 16, 2**22",
    )
    assert changed(before) == {"load_data", "verify_export"}  # which compares the files of the test images


def test_a_layer_counts_for_the_networks_that_have_it(copy: Path) -> None:
    before = digests()
    edit(copy / "layers" / "gelu.py", "import keras\n", "import keras\n\nA_CONSTANT = 1\n")
    assert changed(before) == {"vit"}


def test_a_network_counts_for_itself(copy: Path) -> None:
    before = digests()
    edit(copy / "layerflow" / "models" / "cnn.py", "4 * width", "5 * width")
    assert changed(before) == {"cnn"}


def test_a_setting_of_the_gate_and_a_field_of_a_decision_change_no_step(copy: Path) -> None:
    before = digests()
    edit(copy / "layerflow" / "settings" / "gate.py", "        0.005,", "        0.006,")
    edit(copy / "layerflow" / "outcomes.py", "    accuracy: float\n", "    accuracy: float\n    more: int = 0\n")
    assert changed(before) == set()


@pytest.mark.parametrize("file", ["verifier/graph.py", "verifier/answer.py", "verification.py"])
def test_a_stricter_verifier_verifies_again_and_trains_nothing_anew(copy: Path, file: str) -> None:
    before = digests()
    program = copy / "layerflow" / "export" / file
    write(program, program.read_text() + "\nSTRICTER = True\n")
    assert changed(before) == {"verify_export"}
