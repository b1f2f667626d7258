"""The house: which room may import which, and what must never be loaded or stored."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["layers", "layerflow", "tasks", "flows", "cli"]  # each may import those before it


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room}/ is empty"
    return found


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level or file.parent.name == "verifier", f"{file}: a relative import hides the room"
            names |= set() if node.level else {node.module or ""}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_never_go_backwards(room: str) -> None:
    forbidden = set(ROOMS[ROOMS.index(room) + 1 :])
    for file in sources(room):
        assert not {name.partition(".")[0] for name in imported(file)} & forbidden, file


@pytest.mark.parametrize("room", ["layers", "layerflow"])
def test_the_work_is_free_of_prefect(room: str) -> None:
    for file in sources(room):
        assert "prefect" not in {name.partition(".")[0] for name in imported(file)}, file


def test_layers_know_keras_and_where_it_cannot_say_something_tensorflow() -> None:
    for file in sources("layers"):
        outside = {name.partition(".")[0] for name in imported(file)} - set(sys.stdlib_module_names)
        assert outside <= {"keras", "tensorflow", "layers"}, file


def test_the_verifier_imports_nothing_of_the_project() -> None:
    program = sorted((ROOT / "layerflow" / "export" / "verifier").glob("*.py"))
    outside = {name.partition(".")[0] for file in program for name in imported(file)}
    assert outside - set(sys.stdlib_module_names) == {"numpy", "tensorflow"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flows.retrain", ["tensorflow", "keras", "tensorflow_datasets", "sklearn", "matplotlib"]),
        ("flows.sweep", ["tensorflow", "keras", "optuna", "ray", "prefect_ray", "sklearn", "matplotlib"]),
        ("layerflow.config", ["tensorflow", "keras", "prefect"]),
        ("layerflow.records", ["tensorflow", "keras", "prefect"]),
        ("layerflow.registry.promotion", ["tensorflow", "prefect", "matplotlib"]),
        ("layerflow.export.verification", ["tensorflow", "prefect", "matplotlib"]),
        ("layerflow.sweeps.space", ["tensorflow", "keras", "prefect", "optuna"]),
        ("cli.main", ["tensorflow", "keras", "prefect", "matplotlib", "optuna", "ray"]),
    ],
)
def test_importing_a_room_does_not_load_what_it_does_not_need(module: str, absent: list[str]) -> None:
    script = f"import sys, {module}; sys.exit(', '.join(set({absent!r}) & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_stored_or_loaded_by_pickle() -> None:
    for room in ROOMS:
        for file in sources(room):
            assert not {"pickle", "cloudpickle", "joblib", "dill"} & imported(file), file
            assert "allow_pickle=True" not in file.read_text(), file
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "np.save"):
                    assert "allow_pickle=False" in ast.unparse(node), f"{file}:{node.lineno}"


def test_ray_is_imported_by_nothing_but_what_was_asked_to_use_it() -> None:
    for room in ROOMS:
        for file in sources(room):
            first = {name for node in ast.parse(file.read_text()).body for name in _names(node)}
            assert not {"ray", "prefect_ray"} & first, file


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
