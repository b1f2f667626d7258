"""What the documents say is run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
DOC = (ROOT / "docs" / "custom-layers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    done = forked.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.process
def test_every_snippet_of_the_road_runs_in_order(tmp_path: Path) -> None:
    """In a process of its own, as a reader of the page runs them."""
    snippets = [code for kind, code in BLOCKS if kind == "python" and not re.match("# [a-z]+/", code)]
    assert len(snippets) == 7
    run([sys.executable, "-c", "\n".join(snippets)], tmp_path)


def apply(diff: str, project: Path) -> None:
    """Change the file that the first line names as the other lines say; what goes must be there once."""
    name, *lines = diff.splitlines()
    old, new = ("\n".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    text = (project / name).read_text()
    assert text.count(old) == 1, f"{name}: {old!r}"
    (project / name).write_text(text.replace(old, new))


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_a_layer_of_ones_own_gets_into_the_pipeline_as_the_page_says(tmp_path: Path) -> None:
    """In processes of their own, which import a copy of the project."""
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


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
]


def anchors(document: Path) -> set[str]:
    """What GitHub calls the headings of a document."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    """The links to files and headings that are not there."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)", text)
    links += [(picture, "") for picture in re.findall(r'\bsrc(?:set)?="([^"]*)"', text)]
    dead = []
    for target, anchor in links:
        file = document.parent / target if target else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(f"{target}#{anchor}")
    return dead


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    assert dead_links(ROOT / document) == []


def test_a_link_to_a_lost_heading_or_file_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What `was` tried, and not\n\n```sh\n# no heading\nx[0](y)\n```\n"
        '[a](#what-was-tried-and-not) [b](#no-heading) <img src="lost.png">'
    )
    (tmp_path / "other.md").write_text(
        "[c](page.md#what-was-tried-and-not) [d](page.md#lost) [e](lost.md#x) [f](page.md)"
    )
    assert dead_links(page) == ["#no-heading", "lost.png#"]
    assert dead_links(tmp_path / "other.md") == ["page.md#lost", "lost.md#x"]


def commands(text: str) -> list[tuple[list[str], str | None]]:
    """The words of each command in a document's console blocks, and why the tests do not run it, if they do not.

    A comment before a block excludes commands: ``<!-- not run by the tests: `text in the command` (why), … -->``.
    """
    found = []
    for comment, block in re.findall(
        r"(?:<!-- not run by the tests: (.*?) -->\n)?^```console\n(.*?)^```$", text, re.M | re.S
    ):
        reasons = dict(re.findall(r"`([^`]+)`(?: \(([^)]+)\))?", comment))
        lines = re.findall(r"^\$ (.*)$", block.replace("\\\n", ""), re.M)
        for part in reasons:
            assert any(part in line for line in lines), f"`{part}` excludes nothing"
        for line in lines:
            words = shlex.split(line, comments=True)
            why = next((reason or "as its neighbour" for part, reason in reasons.items() if part in line), None)
            found.append((words, why))
    return found


def arguments_of(words: list[str]) -> tuple[str, list[str]]:
    """The program that the words start, without its folder and what is set before it, and its arguments."""
    words = words[next(at for at, word in enumerate(words) if "=" not in word) :]
    return words[0].rpartition("/")[2], words[1:]


MAKEFILE = (ROOT / "Makefile").read_text()
#: The documents without those whose commands train one network after the other.
QUICK = [each for each in DOCUMENTS if each not in ("docs/calibration.md", "docs/custom-layers.md", "docs/training.md")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documents_is_one_that_there_is(document: str) -> None:
    from cli.commands import app

    targets = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    for words, _ in commands((ROOT / document).read_text()):
        program, arguments = arguments_of(words)
        if program == "layerflow":
            app.parse_args(arguments, print_error=False, exit_on_error=False)
        elif program == "make":
            assert arguments[0] in targets, arguments


def to_run(documents: list[str]) -> list[list[str]]:
    """The commands of documents that are not excluded, each once, in an order in which each finds what it needs.

    `make run` publishes the first version and `--config` the second. What publishes a model of another name comes last:
    `report` and `rollback` ask which, where there are several.
    """
    assert re.search(r"^run: .*\n\t\$\(VENV\)/bin/layerflow retrain$", MAKEFILE, re.M), "what make run runs"
    chosen: list[list[str]] = []
    for document in documents:
        for words, why in commands((ROOT / document).read_text()):
            program, arguments = arguments_of(words)
            line = ["layerflow", "retrain"] if (program, arguments) == ("make", ["run"]) else [program, *arguments]
            if why is None and line not in chosen:
                chosen.append(line)
    first, last = ["layerflow", "retrain"], {"--model.name", "--data.path"}
    return sorted(chosen, key=lambda line: (bool(last & set(line)), line != first, "--config" not in line))


def outputs(text: str) -> list[tuple[str, list[str]]]:
    """Each command of a document below which its output is shown, and the lines of it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        found += re.findall(r"^\$ (.*)\n((?:[^$].*\n)+)", block, re.M)
    return [(command, shown.splitlines()) for command, shown in found if not command.endswith("\\")]


def without_figures(line: str) -> str:
    """A line of output with a mark in place of each number, and of the folder of the store."""
    line = re.sub(r"\S*/store/", "…/store/", " ".join(line.split()))
    return re.sub(r"\d[\d.]*(e[-+]\d+)?", "#", line)


def test_a_line_of_output_is_compared_but_for_its_figures() -> None:
    known = without_figures("live  version 1: /tmp/x/store/models/a/1 (0.94 to 2.4e-07)  ")
    assert known == without_figures("live version 22: …/store/models/a/22 (0.1 to 1)")
    assert known != without_figures("live version 22: …/store/models/b/22 (0.1 to 1)")


@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
@pytest.mark.parametrize(
    "documents", [pytest.param(DOCUMENTS, marks=pytest.mark.drill), QUICK], ids=["all", "those that train little"]
)
def test_the_commands_of_the_documents_run_and_say_what_is_shown(documents: list[str], tmp_path: Path) -> None:
    readme, data = (ROOT / "README.md").read_text(), (ROOT / "docs" / "data.md").read_text()
    nets = next(block for _, block in BLOCKS if block.startswith("# mynets/nets.py\n"))
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(nets)
    nightly = re.search(r"^```yaml\n(# nightly\.yaml\n.*?)^```$", data, re.M | re.S)
    assert nightly
    (tmp_path / "nightly.yaml").write_text(f"{nightly[1]}gate: {{force: there must be a second version}}\n")
    random = np.random.default_rng(0)
    for name, brightest in (("cat", 60), ("dog", 255)):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        for number in range(60):
            image = Image.fromarray(random.integers(0, brightest, (40, 30, 3), np.uint8))
            image.save(tmp_path / "pets" / "train" / name / f"{number}.png")
    files = sorted((tmp_path / "pets").rglob("*.png"))
    listed = [f"{file.relative_to(tmp_path / 'pets')},{('left', 'right')[int(file.stem) % 2]}" for file in files]
    (tmp_path / "pets" / "slices.csv").write_text("\n".join(["file,camera", *listed]))
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    lines = [*to_run(documents), ["python", "-c", snippet]]
    of_a_terminal = {"HOME": str(tmp_path), "BROWSER": "true", "COLUMNS": "200", "SHELL": "/bin/bash"}  # CI has none
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **of_a_terminal}
    environment.pop("LAYERFLOW_STORE")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "programs" / "commands.py")],
        input=json.dumps([[each.replace("~", str(tmp_path)) for each in line] for line in lines]),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(lines) > 15
    for words, (status, out, err) in zip(lines, answers, strict=True):
        assert status == 0, f"{shlex.join(words)}: {out[-1000:]}{err[-2000:]}"
    said = {shlex.join(line): out for line, (_, out, _) in zip(lines, answers, strict=True)}
    shown = [each for document in documents for each in outputs((ROOT / document).read_text())]
    assert [command for command, _ in shown] == ["make run", "layerflow models verify"]
    for command, expected in shown:
        output = said["layerflow retrain" if command == "make run" else command]
        missing = {without_figures(line) for line in expected} - {without_figures(line) for line in output.splitlines()}
        assert not missing, output
    (answer,) = re.findall(r"# (\[.*\])$", snippet, re.M)
    assert said[shlex.join(lines[-1])].strip() == answer
    if documents is DOCUMENTS:
        assert (tmp_path / "store" / "models" / "MyNet-digits" / "1").is_dir()
