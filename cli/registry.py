"""The commands on published models."""

import contextlib
import json
import sys
import webbrowser
from typing import Any

from rich.table import Table

from cli.run import run_rollback
from cli.show import beside, changes_table, comparison_table, console
from layerflow import manifest, registry, store
from layerflow.errors import DamagedError, RegistryError
from layerflow.promotion import changes
from layerflow.records import Evaluation


def list_versions(name: str | None, as_json: bool) -> None:
    """Every published version, newest first within its name."""
    rows = [_row(each, version) for each in _chosen(name) for version in registry.versions(each)]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"no model is published in {store.root()} yet", file=sys.stderr)
    else:
        table = Table("model", "version", "when", "dataset", "accuracy", "baseline, balanced, worst class", "")
        for row in rows:
            known = row["created"] is not None
            accuracy = f"{row['accuracy']:.4f}" if known else "no receipt"
            cells = (
                row["name"],
                str(row["version"]),
                row["created"] or "?",
                row["dataset"] or "?",
                accuracy,
                row["worst_class"]
                and f"{row['baseline']:.4f}, {row['balanced_accuracy']:.4f}, {row['worst_class']['recall']:.4f} "
                f"({row['worst_class']['name']})",
                row["role"],
            )
            table.add_row(*cells)
        console().print(table)


def show_version(version: int, name: str | None, as_json: bool) -> None:
    """A version's receipt: whole as JSON, its essentials as text."""
    name = registry.the_name(name)
    receipt = _receipt(name, version)
    if as_json:
        print(json.dumps(receipt, indent=2))
        return
    facts = Table.grid(padding=(0, 2))
    evaluation, verified, decision = receipt["evaluation"], receipt["verification"], receipt["decision"]
    examples = f"{evaluation['test_examples']:,} test examples"
    interval = f"{evaluation['accuracy_low']:.4f} to {evaluation['accuracy_high']:.4f}"
    size = f"{receipt['model']['parameters']:,} parameters, {receipt['trained']['epochs']} epochs"
    for row in (
        ("version", f"{version} of {name}: {registry.folder_of(name, version)}"),
        ("published", f"{receipt['created']} by {receipt['flow_run'] or 'the command line'}"),
        ("decision", f"{decision['code']}: {decision['reason']}"),
        ("data", f"{receipt['data']['name']} {receipt['data']['version']}, digest {receipt['data']['digest'][:12]}…"),
        ("model", f"{receipt['trained']['model']} of {size}, seed {receipt['seed']}"),
        ("accuracy", f"{evaluation['accuracy']:.4f} (95 % interval {interval}, {examples})"),
        ("baseline", beside(Evaluation.model_validate(evaluation))),
        ("latency", f"{verified['latency_p50_ms']:.2f} ms an image, 99 % within {verified['latency_p99_ms']:.2f} ms"),
        ("libraries", ", ".join(f"{library} {number}" for library, number in receipt["versions"].items())),
    ):
        facts.add_row(*row)
    console().print(facts)
    if decision.get("comparison"):
        console().print(comparison_table(decision["comparison"]))
        console().print(changes_table(decision["changes"], f"champion {decision['champion']}", "challenger"))


def open_report(version: int | None, name: str | None) -> None:
    """Print the path of a version's report, or of the champion's, and open it in the browser."""
    name = registry.the_name(name)
    report = registry.report_of(name, registry.versions(name)[0] if version is None else version)
    print(report, flush=True)
    webbrowser.open(report.as_uri())


def show_difference(before: int, after: int, name: str | None, as_json: bool) -> None:
    """What the receipts of two versions say differently."""
    name = registry.the_name(name)
    found = [each.model_dump() for each in changes(_receipt(name, before), _receipt(name, after), figures=True)]
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        console().print(changes_table(found, f"version {before}", f"version {after}"))
    else:
        print(f"versions {before} and {after} of {name} differ in nothing that their receipts know")


def check_versions(name: str | None) -> None:
    """Compare every version with its digests, and fail after all were looked at if one is damaged."""
    damaged = 0
    for each in _chosen(name):
        for version in registry.versions(each):
            damage = manifest.damage(registry.folder_of(each, version))
            print(f"{each} {version}: {damage or 'every byte is as published'}")
            damaged += damage is not None
    if damaged:
        raise DamagedError(
            f"Every published version must be as it was published. {damaged} {'is' if damaged == 1 else 'are'} not; "
            "restore it from a copy, or put another into service with layerflow rollback --to."
        )


def roll_back(name: str | None, to: int | None, as_json: bool) -> None:
    """Restore a version, and say what is in service now."""
    with contextlib.redirect_stdout(sys.stderr):
        done = run_rollback(registry.the_name(name), to)
    if as_json:
        print(json.dumps(done.model_dump(), indent=2))
    else:
        print(
            f"version {done.version} of {done.name} is in service, with the model of version {done.restored} in place "
            f"of {done.instead_of}: {store.path(done.published)}"
        )


def _chosen(name: str | None) -> list[str]:
    return [registry.the_name(name)] if name else registry.names()


def _receipt(name: str, version: int) -> dict[str, Any]:
    folder, receipt = registry.folder_of(name, version), registry.receipt_of(name, version)
    if receipt is None:
        raise RegistryError(
            f"{folder} must hold {registry.RECEIPT}. It is gone or can't be read; nothing else tells it."
        )
    return receipt


def _row(name: str, version: int) -> dict[str, Any]:
    receipt = registry.receipt_of(name, version)
    digest = receipt["export"]["digest"] if receipt else None
    if version == registry.versions(name)[0]:
        role = "champion"
    elif version == registry.predecessor(name):
        role = "rollback restores it"
    else:
        role = "taken back" if receipt and registry.identity(receipt) in registry.read_ledger(name).rolled_back else ""
    return {
        "name": name,
        "version": version,
        "role": role,
        "created": receipt["created"] if receipt else None,
        "dataset": receipt["data"]["name"] if receipt else None,
        "accuracy": receipt["evaluation"]["accuracy"] if receipt else None,
        **_beside(receipt),
        "code": receipt["decision"].get("code") if receipt else None,
        "digest": digest,
        "folder": str(registry.folder_of(name, version)),
    }


def _beside(receipt: dict[str, Any] | None) -> dict[str, Any]:
    """What the accuracy of a version must be read beside, where its receipt tells."""
    try:
        scores = Evaluation.model_validate(receipt and receipt["evaluation"])
        worst = {"name": scores.worst.name, "recall": scores.worst.recall}
        return {"baseline": scores.baseline, "balanced_accuracy": scores.balanced_accuracy, "worst_class": worst}
    except (ValueError, ZeroDivisionError):  # no receipt, or no class with a test example
        return dict.fromkeys(("baseline", "balanced_accuracy", "worst_class"))
