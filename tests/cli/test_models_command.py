"""`layerflow models` and `layerflow rollback`, in processes of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from layerflow.registry import versions
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from tests.command import layerflow
from tests.shared import copy_artifact

NAME = "mlp-digits"


@pytest.fixture
def published(first_run: Retrained, session_store: Path, empty_store: Path) -> Path:
    """A store with two versions of one model, of which the second was forced and has another digest."""
    for record in (first_run.data, first_run.export):
        copy_artifact(record.folder, session_store, empty_store)
    parts = ("data", "checked", "model", "trained", "evaluation", "export", "verification")
    good = Challenger(*(getattr(first_run, part) for part in parts))
    promote(RetrainConfig(), good, "first")
    model = empty_store / good.export.saved_model
    contract = model / "assets.extra" / "contract.json"
    contract.write_text(contract.read_text() + "\n")
    from layerflow import checksums

    files = checksums.write_digests(model)
    digest = files[checksums.DIGESTS]
    other = good._replace(
        trained=good.trained.model_copy(update={"digest": "another"}),
        export=good.export.model_copy(update={"digest": digest, "files": files}),
        verification=good.verification.model_copy(update={"export_digest": digest}),
    )
    config = RetrainConfig.model_validate({"gate": {"force": "a test"}, "training": {"epochs": 7}})
    assert promote(config, other, "second").version == 2
    return empty_store


def answer(*arguments: str, store: Path) -> Any:
    done = layerflow(*arguments, "--json", store=store)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.process
def test_models_tells_which_is_in_service_and_which_a_rollback_restores(published: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    rows = answer("models", store=published)
    assert [(row["version"], row["role"]) for row in rows] == [(2, "champion"), (1, "rollback restores it")]
    assert [row["code"] for row in rows] == ["promoted_not_worse", "promoted_first"]
    worst = min(rows[0]["worst_class"]["recall"], rows[0]["balanced_accuracy"], rows[0]["accuracy"])
    assert rows[0]["baseline"] == pytest.approx(37 / 360)  # of the digits, threes
    assert worst == rows[0]["worst_class"]["recall"] < rows[0]["balanced_accuracy"]
    table = layerflow("models", "--name", NAME, store=published).stdout
    figures = f"0.1028, {rows[0]['balanced_accuracy']:.4f}, {worst:.4f} ({rows[0]['worst_class']['name']})"
    assert table.count(figures) == 2
    assert "champion" in table
    assert "rollback restores it" in table


@pytest.mark.process
def test_show_and_diff_tell_how_a_version_came_about(published: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    text = layerflow("models", "show", "2", store=published).stdout
    for part in (
        "promoted_not_worse",
        "0.1028 by always answering 3",
        "right where the other is wrong",
        "config.training.epochs",
        "mlp of 4,810",
    ):
        assert part in text
    assert "--public-key" not in text  # it is not signed
    assert answer("models", "show", "1", store=published)["version"] == 1
    found = {
        change["field"]: (change["before"], change["after"])
        for change in answer("models", "diff", "1", "2", store=published)
    }
    assert found["config.training.epochs"] == (50, 7)
    assert "data.digest" not in found
    assert "have no differences" in layerflow("models", "diff", "1", "1", store=published).stdout


@pytest.mark.process
def test_report_opens_that_of_the_champion_or_of_the_version_asked_for(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    monkeypatch.setenv("BROWSER", "echo opened %s")
    for arguments, version in (((), 2), (("1", "--name", NAME), 1)):
        file = published / "models" / NAME / str(version) / "assets.extra" / "report.html"
        assert layerflow("report", *arguments, store=published).stdout == f"{file}\nopened {file.as_uri()}\n"


@pytest.mark.process
def test_verify_names_what_is_damaged_and_fails(published: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("models", "verify", store=published)
    assert (done.returncode, done.stdout.count("every byte is as published")) == (0, 2)
    (published / "models" / NAME / "1" / "saved_model.pb").write_bytes(b"?")
    done = layerflow("models", "verify", store=published)
    assert done.returncode == 1
    assert f"{NAME} 1: saved_model.pb was changed" in done.stdout
    assert done.stderr.startswith("layerflow: Every published version must be unchanged")
    assert "1 thing is not; restore damaged files" in done.stderr


@pytest.mark.process
def test_rollback_is_one_command(published: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("rollback", store=published)
    assert done.returncode == 0, done.stderr
    assert f"version 3 of {NAME} is live, with the model of version 1 in place of 2" in done.stdout
    rows = answer("models", store=published)
    assert [(row["version"], row["role"]) for row in rows] == [(3, "champion"), (2, "rolled back"), (1, "")]
    assert rows[0]["digest"] == rows[2]["digest"] != rows[1]["digest"]
    assert answer("rollback", "--to", "2", store=published)["restored"] == 2


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["models", "show", "9"], "must be one that is published (1, 2). Received: 9"),
        (["models", "diff", "1", "9"], "must be one that is published (1, 2). Received: 9"),
        (["models", "--name", "mlp-digit"], "did you mean mlp-digits?"),
        (["models", "show", "two"], "two"),
        (["report", "9"], "must be one that is published (1, 2). Received: 9"),
        (["rollback", "--to", "2"], "another model than the live version. Received: 2"),
        (["rollback", "--name", "../../x"], "--name must be one of mlp-digits. Received: ../../x"),
        (["rollback", "--name", "cnn"], "--name must be one of mlp-digits. Received: cnn"),
    ],
)
@pytest.mark.process
def test_what_does_not_exist_is_one_sentence_and_status_2(published: Path, command: list[str], sentence: str) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow(*command, store=published)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert versions.numbers(NAME) == [2, 1]


@pytest.mark.drill
@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_where_a_server_is_configured_a_rollback_is_a_run_there_and_a_wrong_one_is_none(published: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("rollback", "--to", "2", store=published)
    assert done.returncode == 2
    assert done.stderr == "layerflow: --to must name a version with another model than the live version. Received: 2\n"
    done = layerflow("rollback", store=published)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"version 3 of {NAME} is live, with the model of version 1 in place of 2")
    assert (versions.receipt_of(NAME, 3) or {})["flow_run"] == f"rollback-{NAME}"
