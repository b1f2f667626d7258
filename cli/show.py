"""What people see at the end: tables, or one JSON object."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.run import Outcome
from layerflow import registry, store


def retrained_as_json(outcome: Outcome) -> dict[str, Any]:
    """The object of ``--json``; paths are absolute."""
    result, promotion = outcome.result, outcome.result.promotion
    return {
        "status": promotion.status,
        "version": promotion.version,
        "accuracy": promotion.accuracy,
        "test_examples": promotion.test_examples,
        "export": str(store.path(result.export.saved_model)),
        "keras": str(store.path(result.trained.keras)),
        "receipt": str(store.path(promotion.receipt)),
        "flow_run": outcome.flow_run,
        "steps": outcome.steps,
    }


def show_retrained(outcome: Outcome) -> None:
    """The steps with their states and seconds; then accuracy, what was verified, and what was published where."""
    result, console = outcome.result, _console()
    steps = Table("step", "state", title=outcome.flow_run, title_justify="left")
    steps.add_column("seconds", justify="right")
    for name, step in outcome.steps.items():
        steps.add_row(name, step["state"], f"{step['seconds']:.2f}")
    console.print(steps)
    evaluation, verification, promotion = result.evaluation, result.verification, result.promotion
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "accuracy",
        f"{evaluation.accuracy:.4f} (95 % interval {evaluation.accuracy_low:.4f} to {evaluation.accuracy_high:.4f}, "
        f"{evaluation.test_examples:,} test examples)",
    )
    for check in verification.checks:
        facts.add_row("verified", check.detail)
    facts.add_row(
        "latency",
        f"{verification.latency_p50_ms:.2f} ms an image, 99 % within {verification.latency_p99_ms:.2f} ms; "
        f"loads in {verification.load_seconds:.2f} s",
    )
    facts.add_row(promotion.status, promotion.reason)
    if promotion.published:
        facts.add_row("in service", f"version {promotion.version}: {store.path(promotion.published)}")
    facts.add_row("receipt", str(store.path(promotion.receipt)))
    console.print(facts)


def show_verification(folder: Path, report: dict[str, Any]) -> None:
    """Each check with what it found."""
    facts = Table.grid(padding=(0, 2))
    for name, detail in report["checks"].items():
        facts.add_row(name.replace("_", " "), detail)
    facts.add_row("latency", f"{report['latency_p50_ms']:.2f} ms an image, p99 {report['latency_p99_ms']:.2f} ms")
    console = _console()
    console.print(facts)
    console.print(f"{folder} is what was exported, and answers as it did.")


def show_models() -> None:
    """Every published version, newest first within its name."""
    table = Table("model", "version", "when", "dataset", "accuracy", "")
    for name in registry.names():
        for place, version in enumerate(registry.versions(name)):
            table.add_row(name, str(version), *_from_receipt(name, version), "champion" if place == 0 else "")
    if table.row_count:
        _console().print(table)
    else:
        print(f"no model is published in {store.root()} yet", file=sys.stderr)


def _from_receipt(name: str, version: int) -> tuple[str, str, str]:
    receipt = registry.receipt_of(name, version)
    if receipt is None:
        return "?", "?", "no receipt"
    return receipt["created"], receipt["data"]["name"], f"{receipt['evaluation']['accuracy']:.4f}"


def _console() -> Console:
    # Paths must stay whole when the output is piped: wrapping is for terminals.
    return Console() if sys.stdout.isatty() else Console(width=200, soft_wrap=True)
