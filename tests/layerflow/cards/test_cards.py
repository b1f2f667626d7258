"""What people look at: each card has its facts and its pictures, and one page has all cards and needs nothing else."""

import base64
import io
import logging
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from layerflow import checksums, store
from layerflow.cards import confusion as confusion_card
from layerflow.cards import data as data_card
from layerflow.cards import decision as decision_card
from layerflow.cards import drawing, report
from layerflow.cards import evaluation as evaluation_card
from layerflow.cards import markdown as cards
from layerflow.config import RetrainConfig
from layerflow.errors import RegistryError, VerificationError
from layerflow.evaluation.calibration import calibration
from layerflow.export.verification import Verifier
from layerflow.outcomes import Comparison, DecisionCode, Promotion, Retrained
from layerflow.records import ClassScore, DatasetRef, Evaluation, Record
from layerflow.registry import layout, versions
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back
from layerflow.settings.gate import GateConfig
from tests.shared import copy_artifact

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def pictures(card: str) -> list[str]:
    """The texts in the place of a card's pictures, each of which must be a PNG in the card itself."""
    found = re.findall(r"!\[(.*?)\]\(data:image/png;base64,(.*?)\)", card)
    assert len(found) == card.count("![")
    for alt, content in found:
        assert alt
        drawn = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        drawn.load()
        assert drawn.format == "PNG"
    assert len(card) < 300_000
    return [alt for alt, _ in found]


def card_of(record: Record) -> str:
    return store.path(record.card).read_text()


def test_the_calibration_error_of_three_examples_is_the_one_on_paper() -> None:
    # In the bin of 0.9: two examples, one right: |0.5 - 0.9| * 2/3. In that of 0.6: one, right: |1 - 0.6| * 1/3.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = calibration(probabilities, np.array([0, 1, 1]))
    assert found.error == pytest.approx(0.4)
    assert found.counts.tolist() == [0] * 8 + [1] + [0] * 4 + [2, 0]
    assert found.accuracy[13] == 0.5


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error_and_one_that_is_certain_has_its_mistakes() -> None:
    labels = np.array([0, 0, 0, 1])
    assert calibration(np.tile([0.75, 0.25], (4, 1)), labels).error == pytest.approx(0)
    certain = calibration(np.tile([1.0, 0.0], (4, 1)), labels)
    assert (certain.error, certain.counts[14]) == (0.25, 4)


def test_the_training_card_shows_the_curves_and_how_it_ran(first_run: Retrained) -> None:
    card, trained = card_of(first_run.trained), first_run.trained
    assert pictures(card) == [
        f"Curves: loss and accuracy of {trained.epochs} epochs, train and validation; {trained.best_epoch} is best"
    ]
    best = trained.history[trained.best_epoch - 1]
    assert f"| best, epoch {best.epoch} | {best.loss:.4f} | {best.accuracy:.4f} | {best.val_loss:.4f} |" in card
    rate = 1354 * trained.epochs / sum(epoch.seconds for epoch in trained.history)
    assert f"| images a second | {rate:,.0f} (" in card
    for fact in (f"| steps | {trained.steps:,} of 32", "| compiled | xla |", "| replicas | 1 |", "| feed | resident |"):
        assert fact in card


def test_the_evaluation_card_shows_what_is_mixed_up_and_how_sure_it_was(first_run: Retrained) -> None:
    card, evaluation = card_of(first_run.evaluation), first_run.evaluation
    wrong = round(evaluation.test_examples * (1 - evaluation.accuracy))
    alts = pictures(card)
    assert alts[0] == f"Confusion matrix of 10 classes: {wrong} mistakes are off the diagonal"
    assert alts[1].startswith("Bars: precision and recall")
    assert alts[2].startswith("Reliability diagram")
    assert len(alts) == 4, "and the most confident mistakes"
    assert alts[3].count(" predicted as ") == min(wrong, 16)
    assert f"**Accuracy {evaluation.accuracy:.4f}** (95 % interval {evaluation.accuracy_low:.4f} to " in card
    confusion = np.array(evaluation.confusion) * ~np.eye(10, dtype=bool)
    true, taken = np.unravel_index(confusion.argmax(), (10, 10))
    assert f"| {true} | {taken} | {confusion.max()} | " in card
    predictions = np.load(store.path(evaluation.predictions), allow_pickle=False)
    labels = np.load(store.path(first_run.data.folder) / "test_labels.npy", allow_pickle=False)
    surest = np.where(predictions.argmax(axis=1) != labels, predictions.max(axis=1), 0).argmax()
    said = f"{labels[surest]} predicted as {predictions[surest].argmax()}, {predictions[surest].max():.1%}"
    assert alts[3].startswith(f"Images: {said}; ")


def test_three_hundred_classes_of_large_images_are_still_a_small_card(first_run: Retrained, empty_store: Path) -> None:
    random = np.random.default_rng(0)
    classes, examples = tuple(f"[{number} $_$ |" for number in range(300)), 900
    folder = empty_store / "data"
    folder.mkdir(parents=True)
    labels = np.arange(examples, dtype=np.int32) % 300
    images = random.integers(0, 256, (examples, 96, 96, 3), np.uint8)  # nothing is larger than noise
    for split in ("train", "test"):
        np.save(folder / f"{split}_images.npy", images, allow_pickle=False)
        np.save(folder / f"{split}_labels.npy", labels // (16 if split == "train" else 1), allow_pickle=False)
    probabilities = random.dirichlet(np.ones(300), examples).astype(np.float32)
    probabilities[np.arange(600), labels[:600]] += 1
    np.save(folder / "predictions.npy", probabilities / probabilities.sum(axis=1, keepdims=True), allow_pickle=False)
    predicted = probabilities.argmax(axis=1)
    recalls = [float((predicted[labels == number] == number).mean()) for number in range(300)]
    evaluation = first_run.evaluation.model_copy(
        update={
            "per_class": tuple(
                ClassScore(name=name, precision=1, recall=recall, f1=1, examples=3)
                for name, recall in zip(classes, recalls, strict=True)
            ),
            "confusion": tuple(map(tuple, confusion_matrix(labels, predicted).tolist())),
            "test_examples": examples,
        }
    )
    data = first_run.data.model_copy(update={"folder": "data", "classes": classes, "image_shape": (96, 96, 3)})
    assert isinstance(data, DatasetRef)
    assert isinstance(evaluation, Evaluation)
    evaluation_card.write_card(evaluation, first_run.trained, data, folder)
    card = (folder / "card.md").read_text()
    assert len(pictures(card)) == 4
    assert "## Classes (the 20 of lowest recall, of 300)" in card
    assert len(pictures(data_card._samples(data))) == 1


def test_names_with_dollars_and_none_wrong_are_drawn() -> None:
    names, perfect = ("$a_$", "$b_$"), np.array([[3, 0], [0, 3]])
    assert pictures(confusion_card._matrix(names, perfect))
    assert confusion_card._confusions(names, perfect) == "No class was confused with another."


def luminance(colours: np.ndarray) -> np.ndarray:
    """Of sRGB colours (WCAG 2)."""
    share = colours[..., :3] / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one: str, other: str) -> float:
    """Of two colours such as ``#8a8f98`` (WCAG 2)."""
    dark, light = sorted(luminance(np.array(list(bytes.fromhex(colour[1:])))) for colour in (one, other))
    return float((light + 0.05) / (dark + 0.05))


@pytest.mark.parametrize("page", ["#ffffff", "#1d1f23"])
def test_marks_in_cells_without_a_count_stand_out_from_the_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (axis,) = drawn_matrix(ALWAYS_CUP, ["cup", "keyboard", "mouse", "pen"], monkeypatch).axes
    (cells,) = axis.images
    marks = [
        text
        for text in axis.texts
        for column, row in [map(round, text.get_position())]
        if max(column, row) < 4 and min(column, row) >= 0 and cells.get_array()[row, column, 3] == 0
    ]
    assert {text.get_text() for text in marks} == {"0", "·"}
    assert all(contrast(text.get_color(), page) >= 3 for text in marks)


def test_counts_stand_out_from_cells_of_any_strength() -> None:
    # The cells are opaque, so that no page shines through; the number on each of them is black.
    for colour in ("test", "bad"):
        cells = confusion_card._rgba(colour, np.linspace(0, 1, 101))
        assert cells[:, 3].tolist() == [0] + [1] * 100
        assert ((luminance(255 * cells[1:]) + 0.05) / 0.05).min() >= 4.5
    assert confusion_card._BLACK == "#000000"


def drawn_matrix(confusion: np.ndarray, names: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure of a confusion matrix."""
    figures: list[Any] = []
    monkeypatch.setattr(confusion_card, "picture", lambda figure, alt: figures.append(figure) or alt)
    confusion_card._matrix(names, confusion)
    (figure,) = figures
    return figure


#: A network that answers "cup" whatever it sees, as one was found in service.
ALWAYS_CUP = np.array([[62, 0, 0, 0], [142, 0, 0, 0], [10, 0, 0, 0], [30, 1, 0, 0]])


def test_the_matrix_has_every_column_a_mark_for_zero_and_the_recall_of_each_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["cup", "keyboard", "mouse", "pen"]
    (axis,) = drawn_matrix(ALWAYS_CUP, names, monkeypatch).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    at = {(round(x), round(y)): text.get_text() for text in axis.texts for x, y in [text.get_position()]}
    for (row, column), count in np.ndenumerate(ALWAYS_CUP):
        missed = row == column != 0
        assert at[column, row] == (str(count) if count else "0" if missed else "·"), (row, column)
    assert [at[4, row] for row in range(4)] == ["100%", "0%", "0%", "0%"]
    assert [at[column, 4] for column in range(4)] == ["244", "1", "0", "0"]


@pytest.mark.parametrize(("classes", "most", "numbered"), [(2, 9_999, True), (10, 1_200, True), (20, 90_000, False)])
def test_the_numbers_of_the_matrix_have_ten_points_and_no_outline_or_are_left_out(
    monkeypatch: pytest.MonkeyPatch, classes: int, most: int, numbered: bool
) -> None:
    figure = drawn_matrix(np.full((classes, classes), most), [f"class {n}" for n in range(classes)], monkeypatch)
    (axis,) = figure.axes
    figure.draw_without_rendering()
    assert figure.get_figwidth() * 100 <= 570, "or the narrowest page shrinks it"
    cell = axis.transData.transform((1, 0))[0] - axis.transData.transform((0, 0))[0]
    inside = [text for text in axis.texts if max(text.get_position()) < classes - 0.5 and min(text.get_position()) >= 0]
    assert len(inside) == (classes**2 if numbered else 0)
    for text in inside:
        assert not text.get_path_effects()
        assert text.get_color() == confusion_card._BLACK
        # Pixels are drawn at 100 to the inch, and 96 of a page are an inch of 72 points.
        assert text.get_fontsize() * 100 / 72 >= 10 * 96 / 72
        assert text.get_window_extent().width <= cell


def test_long_names_are_cut_and_those_without_glyphs_are_numbers(
    first_run: Retrained, recwarn: pytest.WarningsRecorder
) -> None:
    assert drawing.drawn(["Straße", "кот", "tabby, tabby cat, and others"]) == ["Straße", "кот", "tabby, tabby ca…"]
    assert drawing.numbers_told(["Straße", "кот"]) == ""
    for names in (("日本語", "*cat*"), ("two\nlines", "b"), ("n" * 500, "b")):
        scores = tuple(ClassScore(name=name, precision=1, recall=1, f1=1, examples=3) for name in names)
        mixed_up = first_run.evaluation.model_copy(update={"per_class": scores})
        assert pictures(confusion_card._matrix(names, np.array([[2, 1], [0, 3]])) + evaluation_card._bars(mixed_up))
    assert not recwarn.list
    assert drawing.drawn(["日本語", "cat"]) == ["0", "1"]
    assert drawing.numbers_told(["日本語", "*cat*"]) == r"In the pictures: 0 is 日本語, 1 is \*cat\*."


def test_a_single_mistake_among_a_thousand_classes_is_drawn() -> None:
    shares = np.eye(1000)
    shares[3, 996] = 0.5
    assert confusion_card._reduced(shares).shape == (200, 200)
    assert confusion_card._reduced(shares)[0, 199] == 0.5


def test_the_export_card_shows_what_was_proved(first_run: Retrained) -> None:
    card, verification = card_of(first_run.verification), first_run.verification
    assert pictures(card) == []
    assert "| input | `images` | uint8 | (batch, 8, 8, 1) |" in card
    assert f"**{verification.latency_p50_ms:.2f} ms**, 99 % within {verification.latency_p99_ms:.2f} ms" in card
    for check in verification.checks:
        assert check.detail in card
    for name, digest in first_run.export.files.items():
        assert re.search(rf"\| `{name}` \| [\d,]+ \| `{digest[:12]}…` \|", card)


#: Scores both models of each comparison, in one process.
VERIFIER = Verifier()


def ask(challenger: Challenger, **gate: object) -> tuple[Promotion | None, str]:
    """The decision, if it is not a refusal, and its card."""
    shown: list[str] = []
    config = RetrainConfig.model_validate({"gate": {"baseline": "none", "min_class_recall": 0} | gate})
    try:
        made = promote(config, challenger, "run", shown.append, VERIFIER)
    except VerificationError:
        made = None
    (card,) = shown
    return made, card


def test_the_decision_card_says_what_was_decided_and_why(contenders: dict[str, Challenger], shelf: Path) -> None:
    made, card = ask(contenders["good"])
    assert made
    assert card.startswith(f"# ✓ {NAME}: version 1 is live\n\n**Published: this is the first version")
    assert "- **Live:** version 1, `models/mlp-digits/1`" in card
    assert f"Receipt: `{made.receipt}`. Report with all cards: `{made.report}`." in card
    (alt,) = pictures(card)
    assert alt.startswith(f"Bars: accuracy of the new model {made.accuracy:.4f}, baseline 0.1")
    made, card = ask(contenders["poor"])
    assert made
    assert made.comparison
    assert card.startswith(f"# ✗ {NAME}: not published, version 1 stays live\n\n**Not published: worse than the live")
    assert "** Worse: accuracy" in card
    assert "(`kept_worse`)" in card
    assert f"| accuracy | {made.comparison.champion.accuracy:.4f} | {made.comparison.challenger.accuracy:.4f} |" in card
    _, alt = pictures(card)
    assert alt.startswith(f"Interval: difference in accuracy {made.comparison.difference:+.4f}")
    assert "**Compared on:** 360 images that neither model has learned from" in card
    assert "**Looks at these test images:** 1; they support " in card
    assert "Version 1 is this very model. (`unchanged`)" in ask(contenders["good"])[1]
    assert "(`kept_below_floor`)" in ask(contenders["poor"], min_accuracy=0.99)[1]
    refused, card = ask(contenders["poor"]._replace(export=contenders["similar"].export))
    assert refused is None
    assert "**Refused: it was not verified.**" in card


def test_what_changed_since_the_champion_is_on_the_decision_card(first_run: Retrained) -> None:
    changes = ({"field": "config.training.epochs", "before": 5, "after": 6},)
    made = Promotion.model_validate(first_run.promotion.model_dump() | {"champion_version": 1, "changes": changes})
    card = decision_card.draw(GateConfig(), made, first_run.evaluation, first_run.data)
    assert "| `config.training.epochs` | 5 | 6 |" in card
    assert "**Changed since version 1:** `config.training.epochs` 5 → 6\n" in card.partition("## ")[0]


def test_the_first_screen_of_the_decision_card_is_a_summary(first_run: Retrained) -> None:
    examples = ALWAYS_CUP.sum(axis=1).tolist()
    evaluation = first_run.evaluation.model_copy(
        update={
            "accuracy": 61 / 245,  # a tie that the verified answer breaks the other way
            "accuracy_low": 0.2,
            "accuracy_high": 0.31,
            "test_examples": 245,
            "per_class": tuple(
                ClassScore(name=name, precision=0, recall=recall, f1=0, examples=count)
                for name, recall, count in zip(("cup", "keyboard", "mouse", "pen"), (1, 0, 0, 0), examples, strict=True)
            ),
        }
    )
    made = Promotion.model_validate(
        first_run.promotion.model_dump() | {"code": "kept_below_floor", "version": None, "accuracy": 62 / 245}
    )
    card = decision_card.draw(GateConfig(), made, evaluation, first_run.data)
    summary = card.partition("\n## ")[0]
    assert shown(summary)[2:10] == [
        *("<strong>0.2531</strong>", "<strong>0.5796</strong>", "<strong>none</strong>", "<strong>0.0000</strong>"),
        *("95 % interval 0.2000 to 0.3100", "always answering keyboard", "this is the first"),
        "recall of keyboard: 0 of 142",
    ]
    assert "| accuracy | baseline | live version | worst class |" in summary
    assert "- **Images:** 1,354 train, 83 validation, 360 test; 10 classes of digits" in summary
    assert "- **Balanced accuracy:** 0.2500" in summary
    assert "- **Next:** Train longer" in summary
    assert pictures(summary) == ["Bars: accuracy of the new model 0.2531, baseline 0.5796"]


@pytest.mark.parametrize("code", get_args(DecisionCode))
def test_every_decision_has_its_words_and_what_is_not_published_says_what_to_do_next(
    first_run: Retrained, code: DecisionCode
) -> None:
    made = first_run.promotion.model_copy(update={"code": code})
    card = decision_card.draw(GateConfig(), made, first_run.evaluation, first_run.data)
    assert ("**Next:**" in card) == code.startswith(("kept", "refused", "waiting"))


@pytest.mark.parametrize(("ratio", "lifted"), [(None, False), (1.5, True)])
def test_the_next_step_for_what_can_not_be_compared_lifts_every_rule_that_needs_a_comparison(
    contenders: dict[str, Challenger], shelf: Path, ratio: float | None, lifted: bool
) -> None:
    ask(contenders["poor"])
    (layout.home(NAME) / "1" / layout.RECEIPT).unlink()
    made, card = ask(contenders["good"], max_latency_ratio=ratio)
    assert made
    assert made.code == "kept_not_comparable"
    (advice,) = (line for line in card.splitlines() if line.startswith("- **Next:**"))
    assert "re-run with `--gate.not_comparable floors_only`" in advice
    assert ("without `gate.max_latency_ratio`" in advice) == lifted
    done, _ = ask(contenders["good"], not_comparable="floors_only")
    assert done
    assert done.code == "promoted_not_comparable", "what it advises works"


NASTY = (
    *(
        "*star*",
        "__init__",
        "[cat](x)",
        "![x](y)",
        "<unknown>",
        "<b>",
        "&lt;",
        "a|b",
        "\\",
        "a\\|",
        "`",
        "`a`b",
        "~~x~~",
        "# x",
    ),
    "two\n\n# lines",
)


def shown(markdown: str, alt: bool = False) -> list[str]:
    """The texts of the paragraphs and cells as a reader sees them, or those in the place of pictures."""
    html = report._markdown.render(markdown)
    found = (
        re.findall(r'alt="(.*?)"', html) if alt else re.findall(r"<(?:p|td|h1)>(.*?)</(?:p|td|h1)>", html, re.DOTALL)
    )
    return [unescape(each) for each in found]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_or_a_reason_is_shown_as_it_is(name: str) -> None:
    said, plain = " ".join(name.split()), cards.plain(name)
    assert shown(f"so {plain}.\n\n# {plain}") == [f"so {said}.", said]
    assert shown(cards.table(("", ""), [(plain, "`a|b`"), ("c", plain)])) == [said, "<code>a|b</code>", "c", said]
    assert shown(drawing._inline(b"", name), alt=True) == [said]
    assert shown(cards.as_code(name)) == [f"<code>{' '.join(name.splitlines())}</code>"]


def test_classes_and_forced_reasons_by_any_name_are_on_the_cards_as_they_are(first_run: Retrained) -> None:
    names = ("*star*", "[/b] <unknown>\\")
    scores = tuple(ClassScore(name=name, precision=1, recall=1, f1=1, examples=3) for name in names)
    mixed_up = first_run.evaluation.model_copy(update={"per_class": scores, "confusion": ((2, 1), (0, 3))})
    assert shown(confusion_card._confusions(names, np.array(mixed_up.confusion)))[:2] == list(names)
    reason = "forced (*now*,\n# see <b>), against kept_worse: worse"
    changes = ({"field": "data.classes", "before": ["_a_", "_b_"], "after": names[0]},)
    update = {"reason": reason, "champion_version": 1, "changes": changes}
    made = Promotion.model_validate(first_run.promotion.model_dump() | update)
    seen = shown(decision_card.draw(GateConfig(), made, mixed_up, first_run.data))
    assert any("Forced (*now*, # see <b>), against kept_worse: worse." in each for each in seen)
    assert seen[-3:-1] == ['["_a_", "_b_"]', "*star*"]


def test_what_is_long_is_cut_in_a_cell() -> None:
    assert cards.short(["a", "é"]) == '["a", "é"]'
    assert cards.short([f"class {number}" for number in range(1001)]).endswith("… 1,001 in all")
    assert cards.short("x" * 1234) == f"{'x' * 80}… (1,234 characters)"
    assert len(cards.short(list(range(10_000)))) < 100


@pytest.mark.parametrize(("margin", "marks"), [(0, [" equal"]), (0.005, [" equal", " margin "])])
def test_the_margin_is_marked_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, margin: float, marks: list[str]
) -> None:
    monkeypatch.setattr(
        decision_card, "picture", lambda figure, alt: [each.get_text() for each in figure.axes[0].texts]
    )
    found = Comparison.model_construct(
        champion_version=1, difference=0.0, difference_low=-0.1, difference_high=0.1, p_value=1.0
    )
    assert decision_card._interval(GateConfig(margin=margin), found) == marks


class Page(HTMLParser):
    """All that a page would load, and the elements in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.sections: list[str | None] = []
        self.alts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [given[name] or "" for name in ("src", "href", "srcset", "data", "action") if name in given]
        self.sections += [given["id"]] if tag == "section" else []
        self.alts += [given["alt"]] if tag == "img" else []


def needs_nothing_else(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert all(each.startswith(("data:image/png;base64,", "#")) for each in page.loads)


@pytest.fixture
def with_cards(contenders: dict[str, Challenger], session_store: Path, shelf: Path) -> Challenger:
    """The first run's model, in a store that has its cards too."""
    good = contenders["good"]
    for record in (good.checked, good.trained, good.verification):
        copy_artifact(record.folder, session_store, shelf)
    return good


def test_the_report_has_all_cards_with_all_their_pictures_and_needs_nothing_else(with_cards: Challenger) -> None:
    made = promote(RetrainConfig(), with_cards, "run")
    text = store.path(made.report).read_text()
    assert store.path(made.report) == versions.report_of(NAME, 1)
    page = Page(text)
    assert page.sections == ["decision", "evaluation", "training", "export", "data"]
    records = (with_cards.evaluation, with_cards.trained, with_cards.verification, with_cards.checked)
    assert page.alts[1:] == [alt for record in records for alt in pictures(card_of(record))]
    assert "can't be read" not in text
    assert "url(" not in text
    assert text.count("<h1>") == 5
    assert '<body class="promoted">' in text
    # So the style sheet finds the figures of the summary, to draw them as tiles.
    assert re.search(r'<section id="decision">\n<h1>.*</h1>\n<p>.*</p>\n<table>', text)
    assert "#decision > h1 + p + table { display: grid" in text
    needs_nothing_else(page)


def test_a_class_by_any_name_makes_the_report_load_and_run_nothing() -> None:
    card = "![x](http://example.org/x.png) [y](javascript:z) <script>1</script> <img src=http://example.org/x.png>"
    page = Page(report.render(RetrainConfig(), {"data": card}))
    needs_nothing_else(page)
    assert page.alts == []


def test_a_version_with_its_report_is_sound_and_is_rolled_back_with_it(
    with_cards: Challenger, contenders: dict[str, Challenger]
) -> None:
    promote(RetrainConfig(), with_cards, "run")
    forced = RetrainConfig.model_validate({"gate": {"force": "a test"}})
    assert promote(forced, contenders["similar"], "run").version == 2
    assert [checksums.damage(versions.folder_of(NAME, version)) for version in (1, 2)] == [None, None]
    assert roll_back(NAME).restored == 1
    assert checksums.damage(versions.folder_of(NAME, 3)) is None
    assert versions.report_of(NAME, 3).read_text() == versions.report_of(NAME, 1).read_text()
    versions.report_of(NAME, 3).write_text("?")
    assert checksums.damage(versions.folder_of(NAME, 3)) == f"{layout.REPORT} was changed"


def test_the_report_of_a_kept_model_lies_beside_its_receipt(
    with_cards: Challenger, contenders: dict[str, Challenger]
) -> None:
    promote(RetrainConfig(), with_cards, "run")
    no_floor = RetrainConfig.model_validate({"gate": {"baseline": "none", "min_class_recall": 0}})
    kept = promote(no_floor, contenders["poor"], "run")
    assert kept.report == kept.receipt.removesuffix(".json") + ".html"
    assert "kept_worse" in store.path(kept.report).read_text()


def test_a_card_that_is_damaged_or_gone_keeps_no_model_from_service(with_cards: Challenger) -> None:
    store.path(with_cards.trained.card).unlink()
    store.path(with_cards.evaluation.card).write_bytes(bytes(range(256)) * 10)
    made = promote(RetrainConfig(), with_cards, "run")
    assert made.code == "promoted_first"
    text = store.path(made.report).read_text()
    assert f"The card {with_cards.trained.card} can't be read." in text.replace("&#x27;", "'")
    needs_nothing_else(Page(text))


def test_what_can_not_be_drawn_keeps_no_model_from_service(
    with_cards: Challenger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> str:
        raise KeyError("font")

    monkeypatch.setattr(logging.getLogger("layerflow"), "propagate", True)
    monkeypatch.setattr(decision_card, "draw", fail)
    assert promote(RetrainConfig(), with_cards, "run").version == 1
    assert versions.report_of(NAME, 1).read_text() == "The report could not be drawn; the receipt has all figures."
    assert checksums.damage(versions.folder_of(NAME, 1)) is None
    told = next(record for record in caplog.records if "can't be drawn" in record.getMessage())
    assert "KeyError: 'font'" in told.getMessage()
    assert told.exc_info, "a bug of a card is found by its traceback"


def test_a_version_without_a_report_says_so(with_cards: Challenger) -> None:
    promote(RetrainConfig(), with_cards, "run")
    versions.report_of(NAME, 1).unlink()
    with pytest.raises(RegistryError, match="It does not exist; another version"):
        versions.report_of(NAME, 1)
