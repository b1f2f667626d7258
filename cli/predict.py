"""`layerflow predict`: a published model's answers to image files, as a table, CSV or JSON."""

import contextlib
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli.output import console
from cli.terminal import import_tensorflow_alone, quiet_stderr
from layerflow.checksums import EXTRA
from layerflow.errors import UserError, printed
from layerflow.json_file import read_json
from layerflow.prediction.paths import classes_below, image_files
from layerflow.prediction.scores import Scores
from layerflow.registry import sharing, versions

if TYPE_CHECKING:  # it imports TensorFlow
    from layerflow.prediction.answers import Answer, Predictor

#: Rows of the table, broken files that are named, and classes up to which a confusion matrix is drawn.
_MOST_ROWS, _MOST_BROKEN, _MOST_CLASSES = 100, 20, 20
#: With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def predict(
    paths: list[str], name: str | None, version: int | None, top: int, file: Path | None, as_json: bool
) -> None:
    """Print or write the answers, and name the files that have none."""
    _require_place("--csv", file)
    files = list(image_files(paths, (os.fsdecode(line) for line in sys.stdin.buffer)))
    predictor, classes = _load(name, version)
    top = min(top, len(classes))
    answers = _counted(predictor.answers(files), len(files))
    broken = Counter[str]()
    with contextlib.ExitStack() as stack:
        if file:
            write = stack.enter_context(_csv(file, classes, top))
        elif as_json:
            write = stack.enter_context(_json(classes, top))
        else:
            write = stack.enter_context(_table(classes, top, len(files)))
        for answer in answers:
            write(answer)
            if answer.error:
                _name_broken(answer, broken)
    _end(len(files), broken)
    if file:
        print(f"{len(files) - broken.total():,} answers are in {file}", file=sys.stderr)


def _require_place(flag: str, file: Path | None) -> None:
    if file and (file.is_dir() or not file.parent.is_dir()):
        raise UserError(
            f"{flag} must name a file in a folder that exists. Received: {printed(str(file))}; make the folder, or "
            "name another file."
        )


def evaluate(paths: list[str], name: str | None, version: int | None, card: Path | None, as_json: bool) -> None:
    """Print how many images of a folder of ``<class>/`` folders are recognized, and write a page about it."""
    _require_place("--card", card)
    if len(paths) != 1:
        raise UserError(f"--evaluate takes one folder. Received: {len(paths)}; name the folder above the classes'.")
    found = list(classes_below(paths[0]))
    predictor, classes = _load(name, version)
    scores, broken = Scores(classes), Counter[str]()
    scores.require_known(sorted({label for label, _ in found}))
    answers = _counted(predictor.answers(path for _, path in found), len(found))
    for (label, _), answer in zip(found, answers, strict=True):
        if answer.probabilities is None:
            _name_broken(answer, broken)
        else:
            scores.add(label, int(answer.probabilities.argmax()))
    _end(len(found), broken)
    told = {**scores.as_json(), "broken": broken.total()}
    if card:
        _write_card(card, f"{predictor.model.parent.name}, version {predictor.model.name}", paths[0], told)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print(
        f"accuracy  {told['accuracy']:.4f} (95 % interval {told['accuracy_low']:.4f} to {told['accuracy_high']:.4f}, "
        f"{scores.images:,} images)"
    )
    console().print(_confusion(scores) if len(classes) <= _MOST_CLASSES else _mistakes(scores))


def _write_card(file: Path, model: str, folder: str, told: dict[str, Any]) -> None:
    from layerflow.cards.report import page
    from layerflow.cards.scores import scores_card

    with _appearing(file) as part:
        part.write_text(page(model, {"evaluation": scores_card(model, _text(folder), told)}, ""), encoding="utf-8")
    print(f"the card is {file}", file=sys.stderr)


@contextlib.contextmanager
def _appearing(file: Path) -> Iterator[Path]:
    """A file beside it that takes its place once it is complete."""
    part = file.with_name(f".{file.name}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _load(name: str | None, version: int | None) -> tuple["Predictor", list[str]]:
    """The model, unchanged since it was published, and the names of its classes."""
    sharing.refresh_all()
    name = versions.the_name(name)
    folder = versions.undamaged_folder_of(name, versions.numbers(name)[0] if version is None else version)
    with quiet_stderr():
        import_tensorflow_alone()
        from layerflow.prediction.answers import Predictor
    predictor = Predictor(folder)
    with quiet_stderr():
        predictor.load()
    return predictor, read_json(folder / EXTRA / "contract.json")["classes"]


def _counted(answers: Iterable["Answer"], total: int) -> Iterator["Answer"]:
    """The answers, with a bar on a terminal."""
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("images", total=total)
        for answer in answers:
            yield answer
            bar.advance(task)


def _name_broken(answer: "Answer", broken: Counter[str]) -> None:
    broken[answer.error] += 1
    if broken.total() <= _MOST_BROKEN:
        print(f"no answer: {printed(answer.path)}: {answer.error}", file=sys.stderr)


def _end(files: int, broken: Counter[str]) -> None:
    """Say how many files have no answer.

    Raises:
        UserError: If none has one.
    """
    if not files:
        raise UserError("The paths must name images. They name none; give files, or folders that hold some.")
    if broken.total() == files:
        raise UserError(f"At least one file must be an image that the model takes. None of {files:,} is: see above.")
    if broken:
        reasons = ", ".join(f"{count:,} {printed(reason, 80)}" for reason, count in broken.most_common(3))
        print(f"{broken.total():,} of {files:,} files have no answer: {reasons}", file=sys.stderr)


def _top(answer: "Answer", classes: list[str], top: int) -> list[tuple[str, float]]:
    """The most probable classes with their probabilities."""
    assert answer.probabilities is not None
    chosen = np.argsort(-answer.probabilities, kind="stable")[:top]
    return [(classes[number], float(answer.probabilities[number])) for number in chosen]


@contextlib.contextmanager
def _csv(file: Path, classes: list[str], top: int) -> Iterator[Any]:
    """What writes an answer as a row of a file that is there once it is complete."""
    header = ["file", *(f"{what}_{number}" for number in range(1, top + 1) for what in ("class", "probability"))]
    with _appearing(file) as part, part.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow([*header, "accepted", "error"])

        def write(answer: "Answer") -> None:
            pairs = [("", None)] * top if answer.error else _top(answer, classes, top)
            cells = [cell for name, share in pairs for cell in (_cell(name), "" if share is None else f"{share:.6f}")]
            accepted = "" if answer.accepted is None else str(answer.accepted).lower()
            rows.writerow([_cell(_text(answer.path)), *cells, accepted, _cell(answer.error)])

        yield write


def _text(path: str) -> str:
    """A path in UTF-8, with ``\\xff`` for a byte that is invalid there."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


@contextlib.contextmanager
def _json(classes: list[str], top: int) -> Iterator[Any]:
    """What prints an answer as an object of an array, while they come."""
    out: IO[str] = sys.stdout
    separator = "[\n"

    def write(answer: "Answer") -> None:
        nonlocal separator
        told: dict[str, Any] = {"file": _text(answer.path)}
        if answer.error:
            told["error"] = answer.error
        else:
            told["top"] = [{"class": name, "probability": share} for name, share in _top(answer, classes, top)]
            told |= {} if answer.accepted is None else {"accepted": answer.accepted}
        out.write(separator + json.dumps(told))
        separator = ",\n"

    yield write
    out.write("\n]\n" if separator == ",\n" else "[]\n")


@contextlib.contextmanager
def _table(classes: list[str], top: int, total: int) -> Iterator[Any]:
    """What adds an answer to a table that is printed at the end."""
    table = Table("file", *(column for _ in range(top) for column in ("class", "probability")))

    def write(answer: "Answer") -> None:
        if answer.error or len(table.rows) == _MOST_ROWS:
            return
        cells = [cell for name, share in _top(answer, classes, top) for cell in (printed(name), f"{share:.4f}")]
        table.add_row(printed(answer.path), *cells)

    yield write
    if table.rows:
        console().print(table)
    if total > _MOST_ROWS:
        print(f"These are the first {_MOST_ROWS} of {total:,} files; --csv FILE writes all of them.", file=sys.stderr)


def _confusion(scores: Scores) -> Table:
    table = Table("true class", *map(printed, scores.classes), "recall", title="Confusion matrix, by predicted class")
    for name, row in zip(scores.classes, scores.confusion, strict=True):
        count = int(row.sum())
        recall = f"{row[scores.classes.index(name)] / count:.4f}" if count else ""
        table.add_row(printed(name), *(f"{each:,}" if each else "" for each in row.tolist()), recall)
    return table


def _mistakes(scores: Scores) -> Table:
    """The most frequent mistakes, of more classes than a matrix has room for."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    table = Table("true class", "predicted class", "images")
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CLASSES]:
        true, predicted = np.unravel_index(place, wrong.shape)
        if wrong[true, predicted]:
            table.add_row(
                printed(scores.classes[true]), printed(scores.classes[predicted]), f"{wrong[true, predicted]:,}"
            )
    return table
