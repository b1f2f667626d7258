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
    links = re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)", document.read_text())
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
        "# What `was` tried, and not\n\n```sh\n# no heading\n```\n[a](#what-was-tried-and-not) [b](#no-heading)"
    )
    (tmp_path / "other.md").write_text(
        "[c](page.md#what-was-tried-and-not) [d](page.md#lost) [e](lost.md#x) [f](page.md)"
    )
    assert dead_links(page) == ["#no-heading"]
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


#: Every command of the README, with the reason not to run it.
README = commands((ROOT / "README.md").read_text())


def arguments_of(words: list[str]) -> tuple[str, list[str]]:
    """The program that the words start, without its folder and what is set before it, and its arguments."""
    words = words[next(at for at, word in enumerate(words) if "=" not in word) :]
    return words[0].rpartition("/")[2], words[1:]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documents_is_one_that_there_is(document: str) -> None:
    from cli.commands import app

    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words, _ in commands((ROOT / document).read_text()):
        program, arguments = arguments_of(words)
        if program == "layerflow":
            app.parse_args(arguments, print_error=False, exit_on_error=False)
        elif program == "make":
            assert arguments[0] in targets, arguments


def output_of(document: str, command: str) -> list[str]:
    """What the document shows below the command."""
    block = re.search(rf"^\$ {re.escape(command)}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert block, command
    return block[1].splitlines()


def labels(lines: list[str]) -> list[str]:
    """The steps and facts that a run's output tells, in order, without their figures."""
    return [found[1] for line in lines if (found := re.match(r"(?:│ )?(\w+(?: \w+)?)(?: {2,}| +│)", line))]


# In a process of its own, because these commands are run in a folder of their own; in one, because each has to import
# TensorFlow otherwise.
@pytest.mark.usefixtures("on_the_server")
def test_the_commands_of_the_readme_run_and_make_run_says_what_it_shows(tmp_path: Path) -> None:
    nets = next(block for _, block in BLOCKS if block.startswith("# mynets/nets.py\n"))
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(nets)
    (tmp_path / "nightly.yaml").write_text("training: {epochs: 2}\ngate: {force: there must be a second version}\n")
    random = np.random.default_rng(0)
    for name, brightest in (("cat", 60), ("dog", 255)):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        for number in range(60):
            image = Image.fromarray(random.integers(0, brightest, (40, 30, 3), np.uint8))
            image.save(tmp_path / "pets" / "train" / name / f"{number}.png")
    custom = commands(DOC)[-1][0]
    assert "mynets.nets:MyNet" in custom
    (_, why), *others = README
    assert why is None, "make run is `layerflow retrain`"
    # What publishes a model of another name comes last: `report` and `rollback` ask which, where there are several.
    chosen = sorted((words for words, why in others if why is None), key=lambda words: "--model.name" in words)
    lines = [["layerflow", "retrain"], *chosen, custom]
    driver = [sys.executable, str(ROOT / "tests" / "programs" / "commands.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "BROWSER": "true", "COLUMNS": "200"}
    environment.pop("LAYERFLOW_STORE")
    done = subprocess.run(
        driver,
        input=json.dumps(
            [
                [program, *(each.replace("~", str(tmp_path)) for each in arguments)]
                for program, arguments in map(arguments_of, lines)
            ]
        ),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(lines) >= 9
    for words, (status, out, err) in zip(lines, answers, strict=True):
        assert status == 0, f"{shlex.join(words)}: {out[-1000:]}{err[-2000:]}"
    shown = labels(output_of((ROOT / "README.md").read_text(), "make run"))
    assert (shown[0], shown[7], shown[-3]) == ("load_data", "promote_model", "latency"), "the labels are read"
    assert labels(answers[0][1].splitlines())[: len(shown)] == shown
    assert (tmp_path / "store" / "models" / "MyNet-digits" / "1").is_dir()
