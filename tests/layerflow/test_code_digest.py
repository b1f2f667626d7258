"""The digest of the code that a step runs."""

import shutil
from pathlib import Path

import pytest

from layerflow import code_digest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project of two rooms, where a step reaches ``used`` through a function's own import."""
    for room in ("layerflow", "layers", "tasks"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("")
    (tmp_path / "layerflow" / "used.py").write_text("from layers import deep\nX = 1  # a comment\n")
    (tmp_path / "layers" / "deep.py").write_text("Y = 1\n")
    (tmp_path / "layerflow" / "unused.py").write_text("Z = 1\n")
    (tmp_path / "tasks" / "step.py").write_text("def step():\n    from layerflow.used import X\n")
    monkeypatch.setattr(code_digest, "_ROOT", tmp_path)
    monkeypatch.setattr(code_digest, "_ROOMS", [tmp_path / "layerflow", tmp_path / "layers"])
    return tmp_path


def digest(project: Path) -> str:
    code_digest.code_digest.cache_clear()
    return code_digest.code_digest(project / "tasks" / "step.py")


@pytest.mark.parametrize("file", ["layerflow/used.py", "layers/deep.py"])
def test_a_change_in_code_that_the_step_reaches_changes_it(project: Path, file: str) -> None:
    before = digest(project)
    (project / file).write_text((project / file).read_text().replace("1", "2"))
    assert digest(project) != before


def test_a_comment_or_code_that_the_step_does_not_reach_leaves_it(project: Path) -> None:
    before = digest(project)
    (project / "layerflow" / "used.py").write_text("from layers import deep\n\n\nX = 1\n")
    (project / "layerflow" / "unused.py").write_text("Z = 2\n")
    (project / "tasks" / "step.py").write_text("def step():\n    from layerflow.used import X\n    retries = 5\n")
    assert digest(project) == before


def test_it_is_the_same_in_another_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(project)
    other = project.with_name(f"{project.name}-other")
    shutil.copytree(project, other)
    monkeypatch.setattr(code_digest, "_ROOT", other)
    monkeypatch.setattr(code_digest, "_ROOMS", [other / "layerflow", other / "layers"])
    assert digest(other) == before


def test_training_depends_on_the_layers_and_loading_does_not() -> None:
    tasks = Path(__file__).resolve().parents[2] / "tasks"
    code_digest.code_digest.cache_clear()
    assert code_digest.code_digest(tasks / "train_model.py") != code_digest.code_digest(tasks / "load_data.py")


@pytest.mark.parametrize("file", ["verifier/graph.py", "verification.py"])
def test_a_stricter_verifier_verifies_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    root = Path(__file__).resolve().parents[2]
    for room in ("layerflow", "layers", "tasks"):
        shutil.copytree(root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "_ROOT", tmp_path)
    monkeypatch.setattr(code_digest, "_ROOMS", [tmp_path / "layerflow", tmp_path / "layers"])

    def digests() -> list[str]:
        code_digest.code_digest.cache_clear()
        return [
            code_digest.code_digest(tmp_path / "tasks" / f"{step}.py") for step in ("verify_export", "export_model")
        ]

    verifying, exporting = digests()
    changed = tmp_path / "layerflow" / "export" / file
    changed.write_text(changed.read_text() + "\nSTRICTER = True\n")
    assert digests()[0] != verifying
    assert digests()[1] == exporting
