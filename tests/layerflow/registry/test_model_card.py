"""The model card of a version: its figures are the receipt's, and nothing that it repeats breaks out of its place."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from flows.retrain import retrain
from flows.sweep import sweep
from layerflow import checksums, store
from layerflow.cards import model_card
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError
from layerflow.outcomes import Promotion, Retrained
from layerflow.registry import layout, versions
from layerflow.registry.answers import answer, settle
from layerflow.registry.ledger import Published, read_ledger, write_ledger
from layerflow.registry.rollback import roll_back

NAME = "mlp-digits"
Decide = Callable[..., Promotion]
PEOPLE = """
intended_use: |
  Sort scanned digits.

  - letters of the post
  - forms
limitations: Not for the handwriting of children.
license: Apache-2.0
authors: [Ada Lovelace]
"""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.yaml"
    file.write_text(PEOPLE)
    return file


def card(version: int) -> str:
    return (layout.home(NAME) / str(version) / layout.CARD).read_text()


def receipt(version: int) -> dict[str, Any]:
    return json.loads((layout.home(NAME) / str(version) / layout.RECEIPT).read_text())


def head(text: str) -> dict[str, Any]:
    """The head as the Hub reads it: YAML 1.2, up to the first line that is dashes alone."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    return YAML(typ="safe").load(found[1])


def test_a_version_has_a_card_with_the_figures_of_its_receipt(decide: Decide, people: Path) -> None:
    decide("poor")
    decide("good", registry={"card": str(people)})
    told, found, text = receipt(2), head(card(2)), card(2)
    assert versions.damage(NAME, 2) is None
    assert f"  {layout.CARD}\n" in (layout.home(NAME) / "2" / checksums.DIGESTS).read_text()
    assert (found["license"], found["pipeline_tag"], found["datasets"]) == (
        "apache-2.0",
        "image-classification",
        ["digits"],
    )
    ((result,),) = (index["results"] for index in found["model-index"])
    evaluation = told["evaluation"]
    recalls = [each["recall"] for each in evaluation["per_class"]]
    assert [each["value"] for each in result["metrics"]] == [
        round(each, 4) for each in (evaluation["accuracy"], sum(recalls) / len(recalls), min(recalls))
    ]
    assert result["dataset"] == {
        "name": "digits",
        "type": "digits",
        "split": "test",
        "revision": told["data"]["digest"],
    }
    for each in evaluation["per_class"]:
        figures = " | ".join(f"{each[name]:.4f}" for name in ("recall", "precision", "f1"))
        assert f"| {each['name']} | {each['examples']} | {figures} |" in text
    comparison = told["decision"]["comparison"]
    assert f"| accuracy | {comparison['champion']['accuracy']:.4f} | {evaluation['accuracy']:.4f} |" in text
    assert f"95 % interval {evaluation['accuracy_low']:.4f} to {evaluation['accuracy_high']:.4f}" in text
    assert all(each["detail"].split(" (")[0].replace("_", r"\_") in text for each in told["verification"]["checks"])
    assert "There was no live version." in card(1)
    assert "Sort scanned digits.\n\n- letters of the post\n- forms" in text
    assert text.count("Not filled in") == card(1).count("Not filled in") == 1
    assert "Not filled in: out-of-scope use, ethical considerations, contact." in text


def test_the_hub_reads_the_head(decide: Decide, people: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="it comes with the extra `hub`")
    decide("good", registry={"card": str(people)})
    data = hub.ModelCard.load(layout.home(NAME) / "1" / layout.CARD).data
    assert data.to_dict() == head(card(1))
    assert [each.metric_type for each in data.eval_results] == ["accuracy", "recall", "recall"]
    assert data.eval_results[0].metric_value == round(receipt(1)["evaluation"]["accuracy"], 4)


def test_what_the_card_says_of_loading_the_model_works(
    decide: Decide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decide("good")
    (snippet,) = re.findall(r"```python\n(.*?)```", card(1), re.DOTALL)
    monkeypatch.chdir(layout.home(NAME) / "1")
    exec(compile(snippet, layout.CARD, "exec"), {})
    said = capsys.readouterr().out
    assert re.fullmatch(r"[0-9] 0\.\d+\n", said)


def test_the_command_of_the_card_gives_the_settings_of_the_run(decide: Decide) -> None:
    decide("good")
    (command,) = re.findall(r"`(layerflow retrain .*?)`", card(1))
    assert command == f"layerflow retrain {RetrainConfig.model_validate(receipt(1)['config']).as_flags}"
    assert "--gate.min_class_recall 0.0" in command


def test_a_restored_version_says_so_and_keeps_what_was_said_of_its_model(decide: Decide, people: Path) -> None:
    decide("poor", registry={"card": str(people)})
    decide("good")
    roll_back(NAME)
    assert "**Restored by a rollback.** The model is that of version 1, published again in place of version 2." in card(
        3
    )
    assert "Restored by a rollback" not in card(1)
    assert "children" in card(3)
    assert head(card(3)) == head(card(1))
    assert versions.damage(NAME, 3) is None


def test_what_a_person_says_publishes_nothing_by_itself(decide: Decide, people: Path) -> None:
    decide("good", registry={"card": str(people)})
    before = card(1)
    people.write_text("license: mit")
    again = decide("good", registry={"card": str(people)})
    assert (again.code, versions.numbers(NAME), card(1)) == ("unchanged", [1], before)
    other = decide("similar", registry={"card": str(people.rename(people.with_name("other.yaml")))}, margin=1)
    assert head(card(2))["license"] == "mit"
    assert not [each for each in other.changes if "card" in each.field]


def test_an_approved_candidate_has_what_was_said_when_it_was_asked_about(decide: Decide, people: Path) -> None:
    decide("good", registry={"card": str(people)}, approval="always")
    people.write_text("license: mit")
    settle(NAME, 1, answer(True, "anna", ""))
    assert head(card(1))["license"] == "apache-2.0"
    assert "approved by anna" in card(1)


@pytest.mark.parametrize("flow", [retrain, sweep])
def test_a_wrong_file_ends_the_run_before_anything_is_made(empty_store: Path, people: Path, flow: Any) -> None:
    people.write_text("licence: mit")
    config = RetrainConfig.model_validate({"registry": {"card": str(people)}})
    with pytest.raises(ConfigError, match=r"Received: licence \(did you mean license\?\)"):
        flow.fn(config)
    assert not (store.root() / "load_data").exists()


def test_a_version_of_an_earlier_layerflow_has_no_card_and_stays_valid(decide: Decide) -> None:
    for who in ("poor", "good"):
        decide(who)
    folder = layout.home(NAME) / "1"
    (folder / layout.CARD).unlink()
    told = receipt(1)
    for part in ("card", "checked", "code"):
        del told[part]
    (folder / layout.RECEIPT).write_text(json.dumps(told))
    checksums.write_digests(folder)
    ledger = read_ledger(NAME)
    entry = Published(sums=checksums.sha256(folder / checksums.DIGESTS), model=versions.model_digest(NAME, 1))
    write_ledger(NAME, ledger.model_copy(update={"published": {**(ledger.published or {}), 1: entry}}))
    assert versions.damage(NAME, 1) is None
    assert roll_back(NAME).version == 3
    assert card(3).count("The receipt of this version does not tell.") == 2
    assert f"accuracy | {told['evaluation']['accuracy']:.4f}" in card(3)


def test_a_changed_card_is_damage(decide: Decide) -> None:
    decide("good")
    (layout.home(NAME) / "1" / layout.CARD).write_text("# A perfect model\n")
    assert versions.damage(NAME, 1) == "README.md was changed"


HOSTILE = (
    "---",
    "...",
    "a\n---\nlicense: mit\n---\n# owned",
    "|a|\\|b|",
    "\\",
    "<script>alert(1)</script>",
    "<!--",
    "```",
    "`x` ``y``",
    "![x](http://example.org/x.png)",
    "[x]: http://example.org",
    "# x",
    "> x",
    "* x",
    "- x",
    "1. x",
    "===",
    ":--",
    "    x",
    "\u202eevil\x1b[2J",
    "$$x$$",
    "&lt;b&gt;",
    "~~~",
    "no",
    "1e3",
    "{a: b}",
    "'\"",
    "x" * 5000,
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_and_no_text_breaks_out_of_its_place(first_run: Retrained, session_store: Path, name: str) -> None:
    plain, hostile = (json.loads((session_store / first_run.promotion.receipt).read_text()) for _ in range(2))
    for told, word in ((plain, "x"), (hostile, name)):
        told["data"]["classes"][0] = told["evaluation"]["per_class"][0]["name"] = word
        told["evaluation"]["per_class"][0]["recall"] = 0.5  # the worst, which the head names
        told["data"]["name"] = told["data"]["version"] = told["decision"]["reason"] = word
        # `card_file.read` refuses control characters; a line that begins with a dash is a list there.
        said = word[:4000].replace("\x1b", "").replace("- x", "-")
        told["card"] = {
            "intended_use": said,
            "limitations": f"one\n{said}\n\n{said}",
            "license": said[:500],
            "authors": [said[:500], said[:500]],
        }
        told["verification"]["checks"][0]["detail"] = word
    ours, theirs = model_card.draw(hostile), model_card.draw(plain)
    assert head(ours)["model-index"][0]["results"][0]["dataset"]["name"] == shown_as(name)
    assert head(ours)["license_name"] == shown_as(name[:500].replace("- x", "-"))
    assert set(head(ours)) - {"datasets"} == set(head(theirs)) - {"datasets"}
    assert blocks(ours) == blocks(theirs)
    assert not [each for each in inlines(ours) if each.type in ("html_inline", "image", "link_open", "em_open")]
    assert "\x1b" not in ours
    assert "\u202e" not in ours


def shown_as(name: str) -> str:
    """A name in one line of letters that are seen, of at most 500."""
    words = "".join(letter for letter in " ".join(name.split()) if letter.isprintable())
    return words if len(words) <= 500 else f"{words[:499]}…"


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1])


def blocks(text: str) -> list[str]:
    """The kinds of all blocks, in their order: headings, tables with their cells, lists, paragraphs."""
    return [each.type for each in parsed(text)]


def inlines(text: str) -> list[Token]:
    return [child for each in parsed(text) for child in each.children or []]
