"""layerflow from its wheel, in an environment that has the libraries and nothing of the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.shared import once

ROOT = Path(__file__).resolve().parent.parent
#: Real processes, of a new environment: what is found there, and what hides what, is what is claimed.
pytestmark = pytest.mark.process
QUICK = ("--quiet", "--training.compile", "graph")


class Installed(NamedTuple):
    """An environment, and a folder to work in."""

    environment: Path
    folder: Path

    def run(self, *command: str, within: str = ".") -> subprocess.CompletedProcess[str]:
        left_out = ("PYTHONPATH", "LAYERFLOW_STORE")
        return subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.folder / within,
            env={name: value for name, value in os.environ.items() if name not in left_out},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def python(self, program: str, within: str = ".") -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", program, within=within)


def _install() -> str:
    """Build the wheel from the files of the project, and install it by unpacking it: it has no other steps."""
    folder = Path(os.environ["LAYERFLOW_STORE"])
    source = folder / "source"
    wanted = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    names = wanted or ["cli", "flows", "layerflow", "layers", "tasks", "pyproject.toml", "README.md", "LICENSE"]
    for top in {name.partition("/")[0] for name in names} - {"tests", "docs", "benchmarks"}:
        from_, to = ROOT / top, source / top
        to.parent.mkdir(parents=True, exist_ok=True)
        if from_.is_dir():
            shutil.copytree(from_, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif from_.is_file():
            shutil.copy(from_, to)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    (source / "dist").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    venv.create(folder / "environment", symlinks=True)
    (packages,) = (folder / "environment" / "lib").glob("python3.*/site-packages")
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if "layerflow" not in library.name and not (packages / library.name).exists():
            (packages / library.name).symlink_to(library)
    script = folder / "environment" / "bin" / "layerflow"
    script.write_text(
        f"#!{folder / 'environment' / 'bin' / 'python'}\nfrom cli.main import main\nraise SystemExit(main())\n"
    )
    script.chmod(0o755)
    return ""


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(once("wheel", _install)[0] / "environment", tmp_path)


@pytest.mark.usefixtures("on_the_server")
def test_the_digits_are_retrained_from_an_empty_folder(installed: Installed) -> None:
    where = installed.python("import layerflow, layers, cli; print(layerflow.__file__, layers.__file__, cli.__file__)")
    assert str(ROOT) not in where.stdout
    done = installed.run("layerflow", "retrain", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "promoted" in done.stdout
    assert (installed.folder / "store" / "models" / "mlp-digits" / "1" / "saved_model.pb").is_file()
    again = installed.run("layerflow", "retrain", *QUICK)
    assert "unchanged" in again.stdout
    assert again.stdout.count("Cached") >= 5


def test_files_that_are_no_modules_are_in_it(installed: Installed) -> None:
    (root,) = (installed.environment / "lib").glob("python3.*/site-packages")
    for name in ("prefect.yaml", "automations.yaml", "pools/docker.yaml"):
        assert (root / "cli" / "project" / name).read_text() == (ROOT / name).read_text()
    for folder in ("cli/template", "layerflow/prediction/page"):
        files = [file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if not (root / file).is_file()]


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
def test_a_project_is_made_and_publishes_its_own_network(installed: Installed) -> None:
    assert installed.run("layerflow", "init", "mypets").returncode == 0
    done = installed.run("layerflow", "retrain", *QUICK, "--training.epochs", "1", within="mypets")
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "mypets" / "store" / "models" / "mypets").is_dir() or "kept" in done.stdout
    tested = installed.run("python", "-m", "pytest", "-q", within="mypets")
    assert tested.returncode == 0, tested.stdout


def test_folders_of_ones_own_and_packages_of_layerflow_do_not_hide_each_other(installed: Installed) -> None:
    for name in ("layers", "tasks"):
        (installed.folder / name).mkdir()
        (installed.folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    ours = installed.run("layerflow", "models")
    assert ours.returncode == 0, ours.stderr
    theirs = installed.run("layerflow", "retrain", "--quiet", "--model.name", "layers.mine:Net")
    assert (theirs.returncode, theirs.stderr) == (
        2,
        "layerflow: model.name must not name a package of layerflow, and layers is one. Give layers another name, such "
        "as mylayers.\n",
    )
    # As workers start a run: the working folder comes first.
    first = installed.run("python", "-m", "cli.main", "models")
    assert first.returncode == 1
    (line,) = first.stderr.splitlines()
    assert line.startswith("layerflow: layerflow has a package ")
    assert line.endswith(" hides it. Rename that one, such as to mylayers.")
