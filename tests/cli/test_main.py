"""The command line as people use it: in a process of its own."""

import json
import re
import shutil
import sys
import tomllib
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from cli.commands import app
from cli.main import main
from cli.run import _tasks_of
from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.registry import versions
from tests.command import layerflow, several


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store in which `layerflow retrain --json` ran once, and what it printed."""
    store = tmp_path_factory.mktemp("cli") / "store"
    done = layerflow("retrain", "--json", store=store)
    assert done.returncode == 0, done.stderr
    return store, json.loads(done.stdout)


@pytest.mark.process
def test_retrain_prints_one_json_object_that_says_what_was_done(trained: tuple[Path, dict[str, Any]]) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    _, answer = trained
    assert list(answer) == [
        *("status", "code", "reason", "comparison", "best", "changes", "version", "candidate"),
        *("accuracy", "baseline", "balanced_accuracy", "worst_class", "lowest_slice", "test_examples"),
        *("export", "formats", "keras", "receipt", "report", "flow_run", "steps"),
    ]
    assert (answer["status"], answer["version"], answer["test_examples"]) == ("promoted", 1, 360)
    assert answer["accuracy"] >= 0.95
    assert (Path(answer["export"]) / "saved_model.pb").is_file()
    assert Path(answer["keras"]).suffix == ".keras"
    assert json.loads(Path(answer["receipt"]).read_text())["version"] == 1
    assert Path(answer["report"]).is_file()
    assert list(answer["steps"]) == [
        *("load_data", "validate_data", "build_model", "train_model", "evaluate_model", "export_model"),
        *("verify_export", "promote_model"),
    ]
    waited_for = {task.name for task in _tasks_of(retrain, RetrainConfig())}
    assert waited_for == answer["steps"].keys(), "the command waits for one that never comes, or not for all"
    states = [step["state"] for step in answer["steps"].values()]
    assert states == ["Completed"] * 7 + ["Promoted"]
    assert all(step["seconds"] >= 0 for step in answer["steps"].values())


@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_the_second_time_everything_is_cached_and_the_table_says_unchanged(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    store, _ = trained
    done = layerflow("retrain", store=store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Cached") == 7
    assert "unchanged" in done.stdout
    assert f"version 1: {store}/models/mlp-digits/1" in done.stdout
    assert "95 % interval" in done.stdout
    assert "all 360 test examples answer as in the evaluation" in done.stdout


@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_flags_win_over_the_config_file(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    store, _ = trained
    file = tmp_path / "config.yaml"
    file.write_text("training:\n  epochs: 3\n  batch_size: 64\nmodel: {hidden: [8]}\ngate: {min_accuracy: 0.99}\n")
    done = layerflow(
        *("retrain", "--json", "--config", str(file), "--training.epochs", "2", "--model.hidden", "[16,4]"),
        *("--training.learning-rate", "0.002"),
        store=store,
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert (answer["status"], answer["version"]) == ("kept", 1)
    receipt = json.loads(Path(answer["receipt"]).read_text())
    assert receipt["config"]["training"]["epochs"] == 2
    assert receipt["config"]["training"]["batch_size"] == 64
    assert receipt["config"]["training"]["learning_rate"] == 0.002
    assert receipt["config"]["model"]["hidden"] == [16, 4]
    assert "below gate.min_accuracy 0.99" in receipt["decision"]["reason"]


@pytest.mark.process
def test_models_lists_what_is_published(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    store, answer = trained
    done = layerflow("models", store=store)
    assert done.returncode == 0
    line = next(line for line in done.stdout.splitlines() if "mlp-digits" in line)
    for word in ("1", "digits", f"{answer['accuracy']:.4f}", "champion"):
        assert word in line
    nothing = layerflow("models", store=tmp_path / "empty")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no model is published" in nothing.stderr


@pytest.mark.process
def test_verify_takes_any_exported_model(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    store, answer = trained
    for folder in (answer["export"], f"{store}/models/mlp-digits/1"):
        done = layerflow("verify", folder, store=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "golden examples answer the same" in done.stdout


@pytest.mark.process
def test_verify_of_a_damaged_model_is_refused_in_one_line(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    copy = shutil.copytree(trained[1]["export"], tmp_path / "copy")
    (Path(copy) / "fingerprint.pb").write_bytes(b"")
    done = layerflow("verify", str(copy), store=tmp_path)
    assert done.returncode == 1
    assert "fingerprint.pb was changed" in done.stderr
    assert done.stderr.count("\n") == 1


BAD_INPUT = {
    "unknown dataset": (["--data.name", "mnsit"], "did you mean mnist"),
    "no images": (["--data.name", "titanic"], "must hold one image and one class label"),
    "unknown model": (["--model.name", "mpl"], "did you mean mlp"),
    "epochs 0": (["--training.epochs", "0"], "training.epochs: input should be greater than or equal to 1"),
    "epochs -1": (["--training.epochs", "-1"], "training.epochs"),
    "batch size 0": (["--training.batch_size", "0"], "training.batch_size"),
    "learning rate": (["--training.learning_rate", "fast"], "learning_rate: input should be a valid number"),
    "unknown flag": (["--training.epoch", "3"], "--training.epoch"),
    "path in a name": (["--registry.name", "../../etc"], "registry.name"),
    "path in a dataset": (["--data.name", "../mnist"], "data.name"),
    "mirror lacks it": (["--data.name", "mnist", "--data.mirror", "/nonexistent"], "which is not there"),
    "not prepared": (["--data.data_dir", "/nonexistent"], "data.data_dir must hold digits/1.0.0"),
    "no folder": (["--data.name", "folder", "--data.path", "/nonexistent"], "/nonexistent does not exist"),
    "no config file": (["--config", "/nonexistent.yaml"], "must name a YAML file that can be read"),
    "stray word": (["mnist"], "use --data.name mnist to choose the data"),
    "no such class": (["--model.name", "layers:Nope"], "layers must hold a class or function Nope"),
    "folder without a path": (["--data.name", "folder"], "--data.path is missing"),
}
BAD_CONFIG = [
    (b"training: {epoch: 3}", "training.epoch: no such setting exists"),
    (b"training: [", "must be YAML"),
    (b"- 3", "must hold a mapping"),
    (b"training: 3", "training: input should be"),
    (b"colour: blue", "colour: no such setting exists"),
    (b"\xff\xfe\x00", "must"),
]


@pytest.fixture(scope="module")
def refused(server: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Status, stdout and stderr of `retrain` for each case, one after the other in a process of their own."""
    folder, commands = tmp_path_factory.mktemp("refused"), {}
    for case, (arguments, _) in BAD_INPUT.items():
        commands[case] = ["layerflow", "retrain", *arguments]
    for number, (content, _) in enumerate(BAD_CONFIG):
        (file := folder / f"{number}.yaml").write_bytes(content)
        commands[str(number)] = ["layerflow", "retrain", "--config", str(file)]
    api = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    return dict(zip(commands, several(list(commands.values()), store=folder / "store", **api), strict=True))


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.process
def test_bad_input_is_one_sentence_and_status_2(case: str, refused: dict[str, list[Any]]) -> None:
    status, out, err = refused[case]
    assert (status, out) == (2, ""), err
    assert BAD_INPUT[case][1] in err
    assert err.count("\n") == 1, err


@pytest.mark.parametrize("number", range(len(BAD_CONFIG)))
@pytest.mark.process
def test_a_wrong_config_file_is_one_sentence_and_status_2(number: int, refused: dict[str, list[Any]]) -> None:
    status, out, err = refused[str(number)]
    assert (status, out) == (2, "")
    assert BAD_CONFIG[number][1] in err
    assert err.count("\n") == 1


@pytest.mark.process
def test_a_store_that_can_not_be_written_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    (tmp_path / "file").write_text("")
    done = layerflow("retrain", store=tmp_path / "file")
    assert done.returncode == 2
    assert "must be a folder that can be written" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.process
def test_a_configured_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("retrain", store=tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert done.stderr.startswith("layerflow: A Prefect server must answer at http://127.0.0.1:9/api")
    assert "or unset PREFECT_API_URL" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("folder", [".", "/nonexistent"])
@pytest.mark.process
def test_verify_of_what_is_no_export_is_one_sentence_and_status_2(folder: str, tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("verify", folder, store=tmp_path)
    assert done.returncode == 2
    assert "must be the folder of a SavedModel that layerflow exported" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.process
def test_the_version_is_that_of_the_project(tmp_path: Path) -> None:
    """In a process of its own: what is asked is the command that is installed."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert layerflow("--version", store=tmp_path).stdout.strip() == project["version"]


@pytest.mark.process
def test_help_names_every_setting(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("retrain", "--help", store=tmp_path, COLUMNS="120")
    assert done.returncode == 0
    for flag in ("--data.name", "--data.mirror", "--model.hidden", "--training.batch_size", "--gate.min_accuracy"):
        assert flag in done.stdout


def said(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and output of a command that needs no process of its own."""
    monkeypatch.setattr(sys, "argv", ["layerflow", *arguments])
    status = 0
    try:
        main()
    except SystemExit as left:
        status = int(left.code or 0)
    out, err = capsys.readouterr()
    return status, out + err


def test_words_that_are_nearly_a_command_are_answered_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, sentence = said(["diff", "1", "2"], monkeypatch, capsys)
    assert (status, sentence) == (2, "layerflow: layerflow has no command diff. Use `layerflow models diff 1 2`.\n")
    status, sentence = said(["retrian"], monkeypatch, capsys)
    assert (status, sentence.count("\n")) == (2, 1)
    assert "retrain" in sentence


def test_help_begins_with_the_ten_most_used_flags_and_ends_with_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    status, text = said(["retrain", "--help"], monkeypatch, capsys)
    groups = re.findall(r"╭─ ([\w ]+?) ─", text)
    assert status == 0
    assert groups[:5] == ["Most used", "Options", "Data", "Model", "Training"]
    assert groups[5:] == ["Augment", "Finetune", "Export", "Gate", "Registry", "Checks", "Extend", "Devices"]
    most_used = text[: text.index("╭─ Options")]
    assert len(re.findall(r"^│ --", most_used, re.MULTILINE)) == 10
    assert "layerflow retrain --data.name folder --data.path" in text.partition("Examples")[2]


def test_hidden_layers_are_given_as_people_write_them() -> None:
    for words in (["128,64"], ["[128, 64]"], ["128", "--model.hidden", "64"]):
        _, bound, _ = app.parse_args(["retrain", "--model.hidden", *words], exit_on_error=False, print_error=False)
        assert bound.kwargs["settings"].model.hidden == (128, 64)


@pytest.mark.parametrize("flag", ["--no-open", "--open"])
def test_a_report_is_opened_unless_it_is_not_wanted(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(versions, "the_name", lambda name: "m")
    monkeypatch.setattr(versions, "report_of", lambda name, version: tmp_path)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert said(["report", "1", flag], monkeypatch, capsys) == (0, f"{tmp_path}\n")
    assert opened == ([tmp_path.as_uri()] if flag == "--open" else [])


def test_a_shell_completes_commands() -> None:
    script = app.generate_completion(shell="bash")  # the others are Cyclopts' own
    assert "retrain" in script
    assert "data.name" in script


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_real_mnist_is_promoted(mirror: str, real_datasets: Path, tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    shutil.copytree(real_datasets / "tfds", tmp_path / "store" / "tfds")
    arguments = ("retrain", "--data.name", "mnist", "--training.epochs", "5", "--json")
    done = layerflow(*arguments, store=tmp_path / "store", LAYERFLOW_MIRROR=mirror)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["version"], answer["test_examples"]) == ("promoted", 1, 10_000)
    assert answer["accuracy"] >= 0.970


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_real_mnist_is_published_in_four_formats(mirror: str, real_datasets: Path, tmp_path: Path) -> None:
    """In a process of its own, which starts the converter and each runtime in others."""
    shutil.copytree(real_datasets / "tfds", tmp_path / "store" / "tfds")
    formats = ("--export.formats", "litert", "--export.formats", "litert_int8", "--export.formats", "onnx")
    arguments = ("retrain", "--data.name", "mnist", "--model.name", "cnn", "--training.epochs", "1", *formats, "--json")
    done = layerflow(*arguments, store=tmp_path / "store", LAYERFLOW_MIRROR=mirror)
    assert done.returncode == 0, done.stderr
    version = tmp_path / "store" / "models" / "cnn-mnist" / "1"
    receipt = json.loads((version / "assets.extra" / "receipt.json").read_text())
    found = {each["name"]: each for each in receipt["formats"]["formats"]}
    assert list(found) == ["litert", "litert_int8", "onnx"]
    for name, each in found.items():
        assert each["reason"] is None
        assert each["checks"][0]["detail"].endswith("no file of TensorFlow is loaded")
        assert abs(each["difference"]) <= (0.005 if name == "litert_int8" else 0)
        assert (version / "assets.extra" / "formats" / each["file"]).stat().st_size == each["size"]
    assert found["litert_int8"]["size"] < found["litert"]["size"] / 2
    done = layerflow("verify", str(version), store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime" in done.stdout
