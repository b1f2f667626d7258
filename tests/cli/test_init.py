"""`layerflow init`: what a new project has, and what is refused."""

import sys
from pathlib import Path

import pytest
import yaml

from cli import init as command
from cli.given import settings_of
from cli.init import init
from layerflow import card_file
from layerflow.card_file import CardFile
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError
from layerflow.settings.model import ModelConfig
from tests import forked


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_and_the_nightly_run_are_the_same_and_valid(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos [1]: it's" / "cat").mkdir(parents=True)
    for name, data in (("digits_project", None), ("mypets", Path("photos [1]: it's"))):
        folder = init(name, data)
        monkeypatch.chdir(folder)
        settings = settings_of(None, RetrainConfig())
        assert settings.registry_name == name
        assert settings.model.name == f"{name}.network:network"
        assert settings.data.path == (here / data if data else None)
        deployments = yaml.safe_load((here / folder / "prefect.yaml").read_text())["deployments"]
        assert RetrainConfig.model_validate(deployments[0]["parameters"]["config"]) == settings
        monkeypatch.chdir(here)


def test_what_a_person_fills_in_is_valid_with_its_marks_and_without_them(here: Path) -> None:
    file = init("mypets", None) / "card.yaml"
    assert card_file.read(file) == CardFile()
    first, *fields = file.read_text().splitlines()
    assert first.startswith("# What only a person can say")
    file.write_text("\n".join(line.removeprefix("#").removeprefix(" ") for line in fields))
    filled = card_file.read(file)
    assert filled
    assert filled.model_dump(exclude_none=True).keys() == CardFile.model_fields.keys()


def test_flags_override_the_settings_of_the_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(init("mypets", None))
    assert settings_of(None, RetrainConfig(model=ModelConfig(name="cnn"))).model.name == "cnn"
    Path("layerflow.yaml").write_text("traning: {}")
    with pytest.raises(ConfigError, match="traning"):
        settings_of(None, RetrainConfig())


@pytest.mark.process
def test_the_tests_of_a_new_project_pass(here: Path) -> None:
    """In a process of its own, as whoever made the project runs them."""
    folder = init("mypets", None)
    done = forked.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_what_can_not_be_made_is_one_sentence_and_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "there").mkdir()
    for name, data, sentence in (
        ("my-pets", None, r"^NAME must be that of a Python package: .* Received: my-pets$"),
        ("../pets", None, r"Received: \.\./pets$"),
        ("class", None, r"Received: class$"),
        ("json", None, r"^NAME must not be that of an installed package\. json is; choose another one\.$"),
        ("layers", None, r"^NAME must not be that of an installed package\. layers is"),
        ("there", None, r"^NAME must be that of a new folder\. .*/there exists; choose another one\.$"),
        ("mypets", Path("there"), r"^--data must hold train/<class>/ or <class>/\. there holds no folder; name"),
        ("mypets", Path("lost"), r"^--data must be a folder of images\. Received: lost, which is not a folder\.$"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            init(name, data)
    monkeypatch.setattr(command.importlib.metadata, "version", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        init("mypets", None)
    assert [each.name for each in here.iterdir()] == ["there"]
