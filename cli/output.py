"""What people see at the end: tables, or one JSON object."""

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.run import RetrainRun, SweepRun
from layerflow import store
from layerflow.cards.markdown import short
from layerflow.errors import mask
from layerflow.outcomes import Comparison, FormatProof
from layerflow.records import Evaluation


def retrained_as_json(run: RetrainRun) -> dict[str, Any]:
    """The object of ``--json``; paths are absolute."""
    result, promotion = run.result, run.result.promotion
    return {
        "status": promotion.status,
        "code": promotion.code,
        "reason": promotion.reason,
        "comparison": promotion.comparison.model_dump() if promotion.comparison else None,
        "best": promotion.best.model_dump() if promotion.best else None,
        "changes": [change.model_dump() for change in promotion.changes],
        "version": promotion.version,
        "candidate": promotion.candidate,
        "accuracy": promotion.accuracy,
        "baseline": result.evaluation.baseline,
        "balanced_accuracy": result.evaluation.balanced_accuracy,
        "worst_class": {"name": result.evaluation.worst.name, "recall": result.evaluation.worst.recall},
        "lowest_slice": _lowest_slice(result.evaluation),
        "test_examples": promotion.test_examples,
        "export": str(store.path(result.export.saved_model)),
        "formats": [
            each.model_dump(include={"name", "file", "size", "test_accuracy", "latency_p50_ms", "reason"})
            for each in (result.formats.formats if result.formats else ())
        ],
        "keras": str(store.path(result.trained.keras)),
        "receipt": str(store.path(promotion.receipt)),
        "report": str(store.path(promotion.report)),
        "flow_run": run.flow_run,
        "steps": run.steps,
    }


def show_retrained(run: RetrainRun) -> None:
    """The steps with their states and seconds; then accuracy, what was verified, and what was published where."""
    result, terminal = run.result, console()
    steps = Table("step", "state", title=run.flow_run, title_justify="left")
    steps.add_column("seconds", justify="right")
    for name, step in run.steps.items():
        steps.add_row(name, step["state"], f"{step['seconds']:.2f}")
    terminal.print(steps)
    evaluation, verification, promotion = result.evaluation, result.verification, result.promotion
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "accuracy",
        f"{promotion.accuracy:.4f} (95 % interval {evaluation.accuracy_low:.4f} to {evaluation.accuracy_high:.4f}, "
        f"{evaluation.test_examples:,} test examples)",
    )
    facts.add_row("baseline", beside(evaluation))
    if lowest := evaluation.lowest_slice:
        facts.add_row("lowest slice", f"{lowest.name}: accuracy {lowest.accuracy:.4f} on {lowest.examples:,} images")
    for check in verification.checks:
        facts.add_row("verified", check.detail)
    facts.add_row(
        "latency",
        f"{verification.latency_p50_ms:.2f} ms an image, 99 % within {verification.latency_p99_ms:.2f} ms; "
        f"loads in {verification.load_seconds:.2f} s",
    )
    for each in result.formats.formats if result.formats else ():
        facts.add_row("format", format_sentence(each))
    facts.add_row(promotion.status, promotion.reason)
    if promotion.status == "waiting":
        answers = f"layerflow approve {promotion.name}, with --reject to keep the live version; until {promotion.until}"
        facts.add_row("answer", answers)
    if promotion.published:
        facts.add_row("live", f"version {promotion.version}: {store.path(promotion.published)}")
    facts.add_row("receipt", str(store.path(promotion.receipt)))
    facts.add_row("report", str(store.path(promotion.report)))
    if promotion.comparison:
        terminal.print(comparison_table(promotion.comparison))
        if promotion.best:
            terminal.print(comparison_table(promotion.best, "version {} (best)"))
        changes = [change.model_dump() for change in promotion.changes]
        terminal.print(changes_table(changes, f"version {promotion.champion_version}", "new model"))
    terminal.print(facts)


def format_sentence(proof: FormatProof) -> str:
    """What became of a model in another format."""
    if proof.reason is not None:
        return f"{proof.name} is left out: {proof.reason}"
    return (
        f"{proof.name}: {proof.size:,} bytes, accuracy {proof.test_accuracy:.4f}, "
        f"{proof.latency_p50_ms:.3f} ms an image with {proof.runtime}"
    )


def beside(evaluation: Evaluation) -> str:
    """What an accuracy must be read beside."""
    majority, worst = evaluation.majority, evaluation.worst
    return (
        f"{evaluation.baseline:.4f} by always answering {majority.name}; balanced accuracy "
        f"{evaluation.balanced_accuracy:.4f}; worst class {worst.name}, recall {worst.recall:.4f}"
    )


def _lowest_slice(evaluation: Evaluation) -> dict[str, Any] | None:
    if (lowest := evaluation.lowest_slice) is None:
        return None
    return {**lowest.model_dump(include={"column", "value", "examples"}), "accuracy": lowest.accuracy}


def sweep_as_json(run: SweepRun) -> dict[str, Any]:
    """The object of ``--json``: the trials, the best of them, and what ``layerflow retrain`` prints of its settings."""
    result = run.outcome.result
    return {
        "monitor": result.monitor,
        "trials": [json.loads(trial.model_dump_json()) for trial in result.trials],  # NaN becomes null
        "winner": result.winner.number,
        "settings": mask(result.config.model_dump(mode="json", exclude_defaults=True)),
        "card": str(store.path(result.card)),
        **retrained_as_json(run.retraining),
    }


def show_sweep(run: SweepRun) -> None:
    """The trials, the best in bold, and what became of it."""
    result, terminal = run.outcome.result, console()
    table = Table("trial", "state", result.monitor, "epochs", "seconds")
    for name in result.winner.settings:
        table.add_column(name.partition(".")[2])
    for trial in result.trials:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        cells = [str(trial.number), trial.state, value, str(len(trial.curve)), f"{trial.seconds:.1f}"]
        style = "bold" if trial.number == result.winner.number else None
        table.add_row(*cells, *(short(trial.settings[name]) for name in result.winner.settings), style=style)
    terminal.print(table)
    for trial in result.trials:
        if trial.reason:
            terminal.print(f"trial {trial.number} failed: {trial.reason}")
    terminal.print(f"best   trial {result.winner.number}: layerflow retrain {result.config.as_flags}")
    terminal.print(f"card   {store.path(result.card)}")
    show_retrained(run.retraining)


def show_verification(folder: Path, report: dict[str, Any]) -> None:
    """Each check with what it found."""
    facts = Table.grid(padding=(0, 2))
    for name, detail in report["checks"].items():
        facts.add_row(name.replace("_", " "), detail)
    facts.add_row("latency", f"{report['latency_p50_ms']:.2f} ms an image, p99 {report['latency_p99_ms']:.2f} ms")
    terminal = console()
    terminal.print(facts)
    terminal.print(f"{folder} is the exported model, and its answers are unchanged.")


def comparison_table(found: Comparison, named: str = "version {}") -> Table:
    """A published version against the new model, side by side."""
    from layerflow.evaluation.statistics import p_text  # with SciPy's statistics, which take half a second

    sides = (found.champion, found.challenger)
    table = Table("", named.format(found.champion_version), "new model")
    table.add_row("accuracy", *(f"{side.accuracy:.4f}" for side in sides))
    if found.metric != "accuracy":
        table.add_row(found.metric, *(f"{score:.4f}" for score in found.scores))
    table.add_row("lowest recall", *(f"{side.lowest_recall:.4f} ({side.lowest_class})" for side in sides))
    table.add_row("right where the other is wrong", f"{found.only_champion:,}", f"{found.only_challenger:,}")
    table.add_row("latency p99", *(f"{side.latency_p99_ms:.2f} ms" for side in sides))
    table.caption = (
        f"on {found.images_text}: {found.difference_word} in {found.metric} {found.difference:+.4f}, 95 % interval "
        f"{found.difference_low:+.4f} to {found.difference_high:+.4f}; {found.method} {p_text(found.p_value)}"
    )
    return table


def changes_table(changes: Iterable[dict[str, Any]], before: str, after: str) -> Table:
    """What differs between two receipts, a line each."""
    table = Table("what differs", before, after)
    for change in changes:
        table.add_row(change["field"], *(short(change[side]) for side in ("before", "after")))
    return table


def local_time(moment: str) -> str:
    """A receipt's time, which is UTC, as clocks show it here; as it is where it is no time."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    except (TypeError, ValueError):
        return str(moment)


def console() -> Console:
    # No markup: a class or a reason may be called [/b] or :cat:. Paths must stay whole when the output is piped:
    # wrapping is for terminals.
    plain: dict[str, Any] = {"markup": False, "emoji": False}
    return Console(**plain) if sys.stdout.isatty() else Console(**plain, width=200, soft_wrap=True)
