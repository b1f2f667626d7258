"""What the documents say is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOC = (ROOT / "docs" / "custom-layers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_every_snippet_of_the_road_runs_in_order(tmp_path: Path) -> None:
    snippets = [code for kind, code in BLOCKS if kind == "python" and not code.startswith("# layers/")]
    assert len(snippets) == 7
    run([sys.executable, "-c", "\n".join(snippets)], tmp_path)


def apply(diff: str, project: Path) -> None:
    """Change the file that the first line names as the other lines say; what goes must be there once."""
    name, *lines = diff.splitlines()
    old, new = ("\n".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    text = (project / name).read_text()
    assert text.count(old) == 1, f"{name}: {old!r}"
    (project / name).write_text(text.replace(old, new))


@pytest.mark.usefixtures("on_the_server")
def test_a_layer_of_ones_own_gets_into_the_pipeline_as_the_page_says(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for room in ("cli", "flows", "layerflow", "layers", "tasks", "tests"):
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, block in BLOCKS:
        if kind == "diff":
            apply(block, project)
        elif block.startswith("# layers/swish.py\n"):
            (project / "layers" / "swish.py").write_text(block.partition("\n")[2])
    command = next(block for kind, block in BLOCKS if kind == "console")
    arguments = command.removeprefix("$ layerflow ").split()
    environment = {"PYTHONPATH": str(project), "LAYERFLOW_STORE": str(tmp_path / "store")}
    out = run([sys.executable, "-m", "cli.main", *arguments], project, **environment)
    assert "promoted" in out
    table = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/layers/test_contract.py"]
    assert " passed" in run([*table, "-k", "Swish or row"], project, **environment)


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
    ],
)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([\w./-]+)\)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"
