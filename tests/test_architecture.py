"""The layout: which folder may import which, how deep imports go, and what must never be loaded or stored."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["layers", "layerflow", "tasks", "flows", "cli"]  # each may import those before it
#: The folders of `layerflow` with their rank: a stage imports itself and stages of a lower rank. Rank 0 is shared by
#: all stages: the settings, the bucket, and the modules directly in `layerflow`.
RANKS = {
    **{"": 0, "settings": 0, "remote": 0, "data": 1, "models": 1, "training": 2, "sweeps": 2},
    **{"evaluation": 3, "export": 3, "cards": 4, "prediction": 4, "registry": 5, "collection": 6, "trackers": 6},
}
MOST_LINES = 300  # of a module
#: Import levels inside `layerflow`, those of imports inside functions included.
MOST_LEVELS = 7


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


def modules(room: str) -> dict[str, Path]:
    """The modules of a room by the name that imports use."""
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in sources(room)}


def import_graph() -> dict[str, set[str]]:
    """For each module of the project those that it imports, in functions too, but not for type checkers alone."""
    known = {name: file for room in ROOMS for name, file in modules(room).items()}
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        package, found = name.split(".")[:-1], set[str]()
        for node in _executed(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *filter(None, [node.module])])
                found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        graph[name] = found & known.keys()
    return graph


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _executed(node)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_never_go_backwards(room: str) -> None:
    forbidden = set(ROOMS[ROOMS.index(room) + 1 :])
    for file in sources(room):
        assert not {name.partition(".")[0] for name in imported(file)} & forbidden, file


def test_stages_import_only_earlier_stages() -> None:
    graph = import_graph()
    for module in modules("layerflow"):
        stage = _stage_of(module)
        for other in graph[module]:
            if (earlier := _stage_of(other)) != stage and RANKS[earlier]:
                assert RANKS[earlier] < RANKS[stage], f"{module} imports {other}"


def _stage_of(module: str) -> str:
    """The folder of `layerflow` that a module is in; empty for a shared module, and for a layer."""
    room, *folders, _ = module.split(".")
    stage = folders[0] if room == "layerflow" and folders else ""
    assert stage in RANKS, f"{module} is in a folder that is not a stage"
    return stage


def test_steps_know_nothing_of_trials() -> None:
    graph = import_graph()
    for module in modules("tasks").keys() - {"tasks.__init__"}:
        if not module.startswith("tasks.trials."):
            assert not [other for other in graph[module] if other.startswith("tasks.trials.")], module


def test_no_module_imports_itself_through_others() -> None:
    try:
        graphlib.TopologicalSorter(import_graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_imports_inside_layerflow_are_at_most_seven_levels_deep() -> None:
    graph, levels = import_graph(), dict[str, int]()
    for module in graphlib.TopologicalSorter(graph).static_order():
        below = (levels[other] for other in graph[module] if other.startswith("layerflow."))
        levels[module] = 1 + max(below, default=0)
    deep = {module: levels[module] for module in modules("layerflow") if levels[module] > MOST_LEVELS}
    assert not deep


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_has_at_most_300_lines(room: str) -> None:
    long = {str(file): lines for file in sources(room) if (lines := len(file.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_packages_inside_layerflow_export_nothing() -> None:
    """What one imports is in every cache key that reaches any module of the package."""
    faces = [file for file in sources("layerflow") if file.name == "__init__.py" and file.parent.name != "layerflow"]
    assert not [file for file in faces if file.read_text()]


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
    runtimes = {"tensorflow", "ai_edge_litert", "onnxruntime"}
    assert outside - set(sys.stdlib_module_names) == {"numpy", *runtimes}
    for file in program:  # a process has one of them
        found = {name.partition(".")[0] for name in imported(file)} & runtimes
        assert len(found) <= 1 or file.name == "runtimes.py", file


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "flows.retrain",
            ["tensorflow", "keras", "tensorflow_datasets", "sklearn", "matplotlib", "obstore", "keras_hub"],
        ),
        ("flows.sweep", ["tensorflow", "keras", "keras_hub", "optuna", "ray", "prefect_ray", "sklearn", "matplotlib"]),
        ("layerflow.config", ["tensorflow", "keras", "prefect"]),
        ("layerflow.records", ["tensorflow", "keras", "prefect"]),
        ("layerflow.registry.promotion", ["tensorflow", "prefect", "matplotlib"]),
        ("layerflow.export.verification", ["tensorflow", "prefect", "matplotlib"]),
        ("layerflow.sweeps.space", ["tensorflow", "keras", "prefect", "optuna"]),
        ("cli.main", ["tensorflow", "keras", "prefect", "matplotlib", "optuna", "ray", "obstore"]),
    ],
)
@pytest.mark.process
def test_importing_a_room_does_not_load_what_it_does_not_need(module: str, absent: list[str]) -> None:
    """In a new process, not a forked one: what is loaded is what is claimed."""
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


def test_obstore_is_imported_by_nothing_but_the_bucket_that_was_asked_for() -> None:
    for room in ROOMS:
        for file in sources(room):
            assert "obstore" not in {name.partition(".")[0] for node in _top(file) for name in _names(node)}, file
            if file.parent.name != "remote":
                assert not {name for name in imported(file) if name.partition(".")[0] == "obstore"}, file


def test_model_signing_is_imported_by_nothing_but_what_signs_and_verifies_once_it_does() -> None:
    for room in ROOMS:
        for file in sources(room):
            found = {name.partition(".")[0] for name in imported(file)} & {
                "model_signing",
                "sigstore",
                "sigstore_models",
            }
            assert not found or file.parent.name == "registry", file
            at_once = {name.partition(".")[0] for node in _top(file) for name in _names(node)}
            assert not found & at_once, file


def test_keras_hub_is_imported_by_nothing_but_its_networks() -> None:
    """Whatever imports it has its version in the cache key, which those who don't have it could not even look up."""
    for room in ROOMS:
        for file in sources(room):
            if file != ROOT / "layerflow" / "models" / "hub.py":
                assert not {"keras_hub", "kagglehub"} & {name.partition(".")[0] for name in imported(file)}, file
                assert "layerflow.models.hub" not in imported(file), file


def _top(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text()).body


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
