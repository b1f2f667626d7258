"""The commands on published models."""

import contextlib
import json
import sys
import webbrowser
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from cli.output import beside, changes_table, comparison_table, console, local_time
from cli.run import run_rollback
from layerflow import store
from layerflow.cards.markdown import short
from layerflow.errors import DamagedError, RegistryError
from layerflow.outcomes import Comparison
from layerflow.records import Change, Evaluation
from layerflow.registry import candidates, layout, sharing, versions
from layerflow.registry.aliases import FOLLOWS, aliases_of, serving_config
from layerflow.registry.ledger import Ledger, known_ledger
from layerflow.registry.receipt import Receipt, changes
from layerflow.settings.gate import SignConfig


def list_versions(name: str | None, as_json: bool) -> None:
    """Every published version, newest first within its name."""
    sharing.refresh_all()
    rows = [_row(each, version) for each in _chosen(name) for version in versions.numbers(each)]
    rows += [row for each in ([name] if name else layout.folders()) if (row := _waiting_row(each))]
    for each in [name] if name else layout.folders():
        for complaint in versions.complaints(each):
            print(f"warning: {complaint}", file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"no model is published in {store.root()} yet", file=sys.stderr)
    else:
        table = Table("model", "version", "when", "dataset", "accuracy", "baseline, balanced, worst class", "")
        for row in rows:
            known = row["created"] is not None
            accuracy = f"{row['accuracy']:.4f}" if known else "receipt can't be read"
            cells = (
                row["name"],
                str(row["version"] or f"candidate {row['candidate']}"),
                short(local_time(row["created"])) if known else "?",
                short(row["dataset"] or "?"),
                accuracy,
                row["worst_class"]
                and f"{row['baseline']:.4f}, {row['balanced_accuracy']:.4f}, {row['worst_class']['recall']:.4f} "
                f"({row['worst_class']['name']})",
                ", ".join(filter(None, [row["role"], *(each for each in row["aliases"] if each not in FOLLOWS)])),
            )
            table.add_row(*cells)
        console().print(table)


def show_version(version: int, name: str | None, as_json: bool) -> None:
    """A version's receipt: whole as JSON, its essentials as text."""
    name = _name(name)
    receipt = _receipt(name, version)
    if as_json:
        print(json.dumps(receipt, indent=2))
        return
    told = Receipt.model_validate(receipt)
    facts, folder = Table.grid(padding=(0, 2)), versions.folder_of(name, version)
    evaluation, verified = told.evaluation, told.verification
    interval = f"{_number(evaluation.accuracy_low, '.4f')} to {_number(evaluation.accuracy_high, '.4f')}"
    size = f"{_number(told.model.parameters, ',')} parameters, {_number(told.trained.epochs, ',')} epochs"
    latency = f"99 % within {_number(verified.latency_p99_ms, '.2f')} ms"
    for row in (
        ("version", f"{version} of {name}: {folder}"),
        ("published", f"{local_time(told.created)} by {told.flow_run or 'the command line'}"),
        ("decision", f"{told.decision.code}: {told.decision.reason}"),
        ("data", f"{told.data.name} {told.data.version}, digest {told.data.digest[:12]}…"),
        ("model", f"{told.trained.model} of {size}, seed {_number(told.seed, '')}"),
        (
            "accuracy",
            f"{evaluation.accuracy:.4f} (95 % interval {interval}, "
            f"{_number(evaluation.test_examples, ',')} test examples)",
        ),
        ("baseline", _worth(receipt)),
        ("latency", f"{_number(verified.latency_p50_ms, '.2f')} ms an image, {latency}"),
        *([("formats", ", ".join(sorted(told.formats.published)))] if told.formats.published else []),
        *((what, f"{value:g}") for what, value in evaluation.serving.model_dump(exclude_defaults=True).items()),
        *([("signed", "layerflow verify --public-key says by whom")] if (folder / layout.SIGNATURE).exists() else []),
        ("libraries", ", ".join(f"{library} {number}" for library, number in told.versions.items())),
    ):
        facts.add_row(*row)
    console().print(facts)
    _show_comparison(receipt["decision"])


def _show_comparison(decision: dict[str, Any]) -> None:
    """What the gate saw, where the receipt tells; it is not among what a receipt must hold."""
    if not decision.get("comparison"):
        return
    try:
        comparison = Comparison.model_validate(decision["comparison"])
        differing = [Change.model_validate(each).model_dump() for each in decision["changes"]]
    except (KeyError, TypeError, ValidationError):
        console().print("comparison  this version of layerflow can read none in the receipt")
        return
    console().print(comparison_table(comparison))
    console().print(changes_table(differing, f"version {comparison.champion_version}", "new model"))


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def open_report(version: int | None, name: str | None, browser: bool) -> None:
    """Print the path of a version's report, or of the champion's, and open it in a ``browser`` where that is wanted."""
    name = _name(name)
    report = versions.report_of(name, versions.numbers(name)[0] if version is None else version)
    print(report, flush=True)
    if browser:
        webbrowser.open(report.as_uri())


def print_serving_config(name: str | None, base_path: str | None) -> None:
    """The configuration by which TensorFlow Serving serves a model."""
    print(serving_config(_name(name), base_path), end="")


def show_difference(before: int, after: int, name: str | None, as_json: bool) -> None:
    """What the receipts of two versions say differently."""
    name = _name(name)
    found = [each.model_dump() for each in changes(_receipt(name, before), _receipt(name, after), figures=True)]
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        console().print(changes_table(found, f"version {before}", f"version {after}"))
    else:
        print(f"versions {before} and {after} of {name} have no differences in their receipts")


def check_versions(name: str | None) -> None:
    """Compare versions and candidates with the ledger, their digests and receipts; fail after all if one is wrong."""
    wrong = 0
    sharing.refresh_all()
    for each in [versions.the_name(name)] if name else layout.folders():
        ledger = known_ledger(each)
        sound = "every byte is as published"
        if ledger.published is None:
            sound = "every byte matches its own list; no ledger has a digest of it"
        for version in versions.numbers(each):
            damage = _damage(each, version, ledger)
            print(f"{each} {version}: {damage or sound}")
            wrong += damage is not None
        if asked := candidates.waiting(each):
            damage = candidates.damage(each, asked)
            print(f"{each} candidate {asked.number}: {damage or 'every byte is as when the question was asked'}")
            wrong += damage is not None
        for complaint in versions.complaints(each):
            print(f"{each}: {complaint}")
            wrong += 1
    if wrong:
        raise DamagedError(
            f"Every published version must be unchanged, and nothing else may be in its folder, but "
            f"{wrong} {'thing is' if wrong == 1 else 'things are'} not; restore damaged files from a backup, or run "
            "layerflow rollback --to with another version."
        )


def roll_back(name: str | None, to: int | None, sign: SignConfig, as_json: bool) -> None:
    """Restore a version, and print which one is live."""
    with contextlib.redirect_stdout(sys.stderr):
        done = run_rollback(_name(name), to, sign)
    if as_json:
        print(json.dumps(done.model_dump(), indent=2))
    else:
        print(
            f"version {done.version} of {done.name} is live, with the model of version {done.restored} in place "
            f"of {done.instead_of}: {store.path(done.published)}"
        )


def _name(name: str | None) -> str:
    """As ``versions.the_name``, with what other machines published."""
    sharing.refresh_all()
    return versions.the_name(name)


def _damage(name: str, version: int, ledger: Ledger) -> str | None:
    """What of a version is not as it was published; one that only the bucket has is downloaded."""
    try:
        versions.folder_of(name, version)
    except DamagedError as error:
        return str(error)
    return versions.damage(name, version, ledger)


def _chosen(name: str | None) -> list[str]:
    return [versions.the_name(name)] if name else versions.names()


def _receipt(name: str, version: int) -> dict[str, Any]:
    folder, receipt = versions.folder_of(name, version), versions.receipt_of(name, version)
    if receipt is None:
        raise RegistryError(f"{folder} must hold {layout.RECEIPT}. It is gone or can't be read; restore a backup.")
    return receipt


def _row(name: str, version: int) -> dict[str, Any]:
    found = versions.receipt_of(name, version)
    receipt = Receipt.model_validate(found) if found else None
    model = versions.model_digest(name, version)
    if version == versions.numbers(name)[0]:
        role = "champion"
    elif version == versions.predecessor(name):
        role = "rollback restores it"
    else:
        role = "rolled back" if model in known_ledger(name).rolled_back else ""
    return {
        "name": name,
        "version": version,
        "role": role,
        "aliases": [alias for alias, number in aliases_of(name).items() if number == version],
        "created": receipt.created if receipt else None,
        "dataset": receipt.data.name if receipt else None,
        "accuracy": receipt.evaluation.accuracy if receipt else None,
        **_beside(found),
        "code": receipt.decision.code if receipt else None,
        "digest": receipt.export.digest if receipt else None,
        "model": model,
        "folder": str(versions.folder_of(name, version)),
    }


def _waiting_row(name: str) -> dict[str, Any] | None:
    """The candidate of a model that waits for an answer, in the form of a version's row."""
    asked = candidates.waiting(name)
    if asked is None:
        return None
    folder = candidates.folder_of(name, asked.number)
    try:
        receipt = candidates.read_receipt(folder / layout.RECEIPT)
        scores = Evaluation.model_validate(receipt["evaluation"])
    except (DamagedError, ValueError, KeyError):
        receipt, scores = {}, None
    until = local_time(asked.until.isoformat())
    over = candidates.now() >= asked.until
    return {
        "name": name,
        "version": None,
        "candidate": asked.number,
        "role": f"{'was not approved' if over else 'waits for approval'} until {until}",
        "aliases": ["candidate"],
        "created": receipt["created"] if scores else None,
        "dataset": receipt.get("data", {}).get("name") if scores else None,
        "accuracy": scores.accuracy if scores else None,
        **_beside(receipt),
        "code": "waiting_for_approval",
        "digest": None,
        "model": asked.model,
        "folder": str(folder),
    }


def _scores(receipt: dict[str, Any] | None) -> Evaluation | None:
    """The evaluation of a receipt, where it is whole and has a class with a test example."""
    try:
        scores = Evaluation.model_validate(receipt and receipt["evaluation"])
    except (ValueError, KeyError):
        return None
    return scores if scores.tested else None


def _worth(receipt: dict[str, Any]) -> str:
    scores = _scores(receipt)
    return beside(scores) if scores else "?"


def _beside(receipt: dict[str, Any] | None) -> dict[str, Any]:
    """What the accuracy of a version must be read beside, where its receipt tells."""
    scores = _scores(receipt)
    if scores is None:
        return dict.fromkeys(("baseline", "balanced_accuracy", "worst_class"))
    worst = {"name": scores.worst.name, "recall": scores.worst.recall}
    return {"baseline": scores.baseline, "balanced_accuracy": scores.balanced_accuracy, "worst_class": worst}
