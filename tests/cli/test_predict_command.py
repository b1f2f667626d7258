"""`layerflow predict`: the answers of a published model to files, and what it says of files that have none."""

import csv
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cli import predict
from layerflow import store
from layerflow.data.arrays import images_and_labels
from layerflow.errors import RegistryError, UserError
from layerflow.outcomes import Retrained
from tests import forked, image_files
from tests.command import ROOT
from tests.shared import copy_artifact

#: A name of bytes that are no UTF-8, and that a spreadsheet would take for a formula.
ODD = b"=1+\xff,\n.png"


@pytest.fixture(scope="module", autouse=True)
def only_model(first_run: Retrained, session_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store in which the first run's model is the only one that is published."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(session_store / "models" / "mlp-digits", folder / "models" / "mlp-digits")
    copy_artifact(first_run.data.folder, session_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERFLOW_STORE", str(folder))
        yield


@pytest.fixture(scope="module")
def folder(first_run: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty test images of two classes by name of the class, a copy with an odd name, and files without an answer."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = images_and_labels(first_run.data, "test")
    for name in ("3", "8"):
        (root / name).mkdir()
        for row in np.flatnonzero(np.asarray(labels) == int(name))[:20]:
            Image.fromarray(np.asarray(images[row])[..., 0]).save(root / name / f"{row}.png")
    (root / "3" / "broken.jpg").write_bytes(b"\xff\xd8\xffno image")
    (root / "8" / "print.jpg").write_bytes(image_files.REFUSED["jpeg-cmyk"][0](np.random.default_rng(0), 9, 9))
    os.mkfifo(root / "8" / "pipe.png")
    first = min((root / "3").glob("*.png"))
    Path(os.fsdecode(os.path.join(os.fsencode(root), b"3", ODD))).write_bytes(first.read_bytes())
    return root


@pytest.fixture(scope="module")
def expected(first_run: Retrained, folder: Path) -> dict[str, np.ndarray]:
    """Probabilities by path, of the arrays themselves."""
    model = tf.saved_model.load(str(store.path(first_run.promotion.published or "")))
    files = [file for file in folder.rglob("*.png") if file.is_file()]
    images = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    found = model.signatures["serving_default"](images=tf.constant(images))["probabilities"].numpy()
    return {str(file): row for file, row in zip(files, found, strict=True)}


def test_a_table_has_the_most_probable_classes_of_each_file(
    folder: Path, expected: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    predict.predict([str(folder)], None, None, 2, None, False)
    out, err = capsys.readouterr()
    assert out.count(".png") == len(expected) == 41
    assert f"no answer: {folder}/3/broken.jpg: " in err
    assert f"{folder}/8/print.jpg: is a CMYK JPEG" in err
    assert f"{folder}/8/pipe.png: no regular file" in err
    assert "3 of 44 files have no answer: " in err
    assert all(line.isprintable() for line in err.splitlines())


def test_csv_has_every_file_with_names_that_no_spreadsheet_runs(
    folder: Path, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    target = tmp_path / "answers.csv"
    predict.predict([str(folder / "3"), str(folder / "8")], "mlp-digits", 1, 3, target, False)
    rows = list(csv.DictReader(io.StringIO(target.read_bytes().decode("utf-8"), newline="")))
    answered = [row for row in rows if not row["error"]]
    assert len(rows) == 44
    assert [each.name for each in tmp_path.iterdir()] == ["answers.csv"]
    for row in answered:
        if (probabilities := expected.get(row["file"])) is not None:
            top = np.argsort(-probabilities, kind="stable")[:3]
            assert [row[f"class_{n}"] for n in (1, 2, 3)] == [str(each) for each in top]
            shares = [float(row[f"probability_{n}"]) for n in (1, 2, 3)]
            np.testing.assert_allclose(shares, probabilities[top], atol=2e-6)
    odd = [row["file"] for row in answered if row["file"] not in expected]
    assert odd == [f"{folder}/3/=1+\\xff,\n.png"]
    assert {row["file"] for row in rows if row["error"]} == {
        f"{folder}/{name}" for name in ("3/broken.jpg", "8/print.jpg", "8/pipe.png")
    }


@pytest.mark.parametrize("text", ["=SUM(A1)", "+1", "-1", "@x", "\tx"])
def test_a_cell_is_never_a_formula(text: str) -> None:
    assert predict._cell(text) == f"'{text}"


def test_a_failed_csv_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(predict, "_top", fails)
    with pytest.raises(OSError, match="no space"):
        predict.predict([str(folder / "3")], None, None, 1, tmp_path / "answers.csv", False)
    assert not list(tmp_path.iterdir())


def test_evaluate_compares_with_the_names_of_the_folders(
    folder: Path, expected: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    predict.evaluate([str(folder)], None, None, None, True)
    told = json.loads(capsys.readouterr().out)
    right = sum(str(row.argmax()) == Path(path).parent.name for path, row in expected.items())
    assert (told["images"], told["broken"]) == (41, 3)
    assert told["accuracy"] == right / 41
    assert told["accuracy_low"] < told["accuracy"] <= told["accuracy_high"]
    assert np.trace(told["confusion"]) == right
    assert np.sum(told["confusion"], axis=1).tolist() == [0, 0, 0, 21, 0, 0, 0, 0, 20, 0]
    predict.evaluate([str(folder)], None, None, None, False)
    out = capsys.readouterr().out
    assert f"accuracy  {right / 41:.4f} (95 % interval " in out
    assert "Confusion matrix" in out


def test_the_card_is_a_page_with_the_matrix(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict.evaluate([str(folder)], None, None, tmp_path / "card.html", True)
    told, page = json.loads(capsys.readouterr().out), (tmp_path / "card.html").read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["card.html"]
    assert f"<strong>Accuracy {told['accuracy']:.4f}</strong>" in page
    assert "<h1>mlp-digits, version 1 on " in page
    assert "3 files have no answer" in page
    assert 'src="data:image/png;base64,' in page
    rows = re.findall(r"<td>(\d)</td>\n<td>(\d+)</td>\n<td>\d\.\d{4}</td>", page)
    assert sorted(rows) == [("3", "21"), ("8", "20")]
    with pytest.raises(UserError, match="--card must name a file in a folder that exists"):
        predict.evaluate([str(folder)], None, None, tmp_path, True)


def test_what_can_not_be_done_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    broken, unknown = [str(folder / "3" / "broken.jpg")], [str(tmp_path)]
    with pytest.raises(UserError, match=r"^At least one file must be an image that the model takes\. None of 1 is"):
        predict.predict(broken, None, None, 1, None, False)
    with pytest.raises(
        UserError, match=r"^Each folder must be named like a class of the model: 0, 1, .* Received: cat;"
    ):
        predict.evaluate(unknown, None, None, None, False)
    with pytest.raises(UserError, match=r"^--evaluate takes one folder\. Received: 2;"):
        predict.evaluate(broken + unknown, None, None, None, False)
    with pytest.raises(UserError, match=r"^The paths must name images\. They name none;"):
        predict.predict([str(tmp_path / "empty")], None, None, 1, None, False)
    for place in (tmp_path, tmp_path / "lost" / "answers.csv"):
        with pytest.raises(UserError, match=r"^--csv must name a file in a folder that exists\. Received: "):
            predict.predict([str(folder)], None, None, 1, place, False)


def test_a_version_that_is_not_there_is_one_sentence(folder: Path) -> None:
    with pytest.raises(RegistryError):
        predict.predict([str(folder)], None, 99, 1, None, False)


@pytest.mark.process
def test_a_list_on_stdin_is_answered_as_json(folder: Path) -> None:
    """In a process of its own, whose streams and exit status are what is claimed."""
    listed = [*sorted(str(folder / "8" / name) for name in os.listdir(folder / "8")), "lost.png"]
    done = forked.run(
        [sys.executable, "-m", "cli.main", "predict", "-", "--json", "--top", "1"],
        input="\n".join(listed),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    told = json.loads(done.stdout)
    assert len(told) == 23
    assert told[-1] == {"file": "lost.png", "error": "no such file or directory"}
    assert sum(each.get("top", [{}])[0].get("class") == "8" for each in told) > 15
