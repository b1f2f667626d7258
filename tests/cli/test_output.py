"""What the tables show."""

import time

import pytest

from cli.output import beside, changes_table, comparison_table, console, format_sentence, local_time
from layerflow.outcomes import FormatProof
from layerflow.records import ClassScore, Evaluation
from layerflow.registry.figures import comparison_of


def test_names_and_reasons_that_look_like_markup_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    side = {
        "accuracy": 0.9,
        "lowest_recall": 0.5,
        "lowest_class": "[cat]",
        "latency_p50_ms": 1.0,
        "latency_p99_ms": 1.0,
    }
    counts = {"both_right": 9, "only_challenger": 0, "only_champion": 0, "both_wrong": 1}
    console().print(comparison_table(comparison_of(1, {"champion": side, "challenger": side, **counts})))
    change = {"field": "config.gate.force", "before": "[b]", "after": "see [/wiki] :cat:"}
    console().print(changes_table([change], "version 1", "new model"))
    console().print("forced (see [/wiki])")
    text = capsys.readouterr().out
    assert text.count("([cat])") == 2
    for said in ("│ [b] ", "see [/wiki] :cat:", "forced (see [/wiki])"):
        assert said in text


def test_times_are_those_of_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert local_time("2026-11-24T22:30:00+00:00") == "2026-11-25 07:30 JST"
        assert local_time("yesterday") == "yesterday"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_an_accuracy_is_shown_beside_what_it_is_worth() -> None:
    counts = {"bowl": (62, 31), "cup": (142, 142), "fork": (10, 0), "spare": (0, 0)}
    per_class = tuple(
        ClassScore(name=name, precision=0, recall=right / examples if examples else 0, f1=0, examples=examples)
        for name, (examples, right) in counts.items()
    )
    said = beside(Evaluation.model_construct(None, test_examples=214, per_class=per_class))
    assert said == "0.6636 by always answering cup; balanced accuracy 0.5000; worst class fork, recall 0.0000"


def test_a_format_is_told_with_its_figures_or_with_why_it_is_left_out() -> None:
    proved = FormatProof(name="onnx", size=1701, test_accuracy=0.98, latency_p50_ms=0.4, runtime="ONNX Runtime 1.32.0")
    assert format_sentence(proved) == "onnx: 1,701 bytes, accuracy 0.9800, 0.400 ms an image with ONNX Runtime 1.32.0"
    left_out = proved.model_copy(update={"reason": "worse than the SavedModel"})
    assert format_sentence(left_out) == "onnx is left out: worse than the SavedModel"
