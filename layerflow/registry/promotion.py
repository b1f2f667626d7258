"""The decision whether a proved model is published, and the receipt of how it came about."""

import json
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.cards import decision as decision_card
from layerflow.cards import report
from layerflow.config import RetrainConfig
from layerflow.errors import VerificationError, mask
from layerflow.export import verification
from layerflow.outcomes import Promotion
from layerflow.records import Change, Record
from layerflow.registry import layout, publishing, versions
from layerflow.registry.comparison import learned_by
from layerflow.registry.decision import Decision, decide
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.receipt import Challenger, changes, receipt_for

log = logging.getLogger(__name__)


def promote(
    config: RetrainConfig,
    challenger: Challenger,
    flow_run: str,
    show: Callable[[str], None] = lambda card: None,
    verifier: verification.Verifier | None = None,
) -> Promotion:
    """Publish the challenger as the next version if the gate lets it, or keep the champion; leave a receipt either way.

    The champion is the highest published version. Both are scored as they ship, in the verifying process, on the test
    examples that neither has learned from.

    Args:
        show: Called with the decision's card, Markdown, once all is done; before a refusal is raised, too.
        verifier: What has verified the challenger, and scores both; default: one of its own.

    Raises:
        VerificationError: If the verification is not of this export, or disagrees with the evaluation.
        DamagedError: If the export, the test examples or the registry's ledger are not as they were written.
    """
    name = config.registry_name
    with store.locked(f"models-{name}"):
        champion = versions.champion_of(name)
        theirs = versions.receipt_of(name, champion) if champion else None
        receipt = receipt_for(config, challenger, flow_run)
        learned = cache(partial(learned_by, challenger))  # it reads all of the data
        decision = decide(config, challenger, model_identity(receipt), champion, learned, verifier)
        verdict = decision.verdict._replace(reason=mask(decision.verdict.reason))  # a forced one repeats its user
        decision = _with_look(name, decision._replace(verdict=verdict))
        published = verdict.code.startswith("promoted")
        version = publishing.next_version(name) if published else champion
        differing = changes(theirs, receipt) if theirs else ()
        receipt |= {
            "version": version if published else None,
            "decision": _as_receipt(decision, version, champion, differing),
        }
        in_service = layout.home(name) / str(version)
        receipt_file, report_file = in_service / layout.RECEIPT, in_service / layout.REPORT
        if not published and verdict.code != "unchanged":
            receipt_file = store.root() / "receipts" / name / f"{challenger.export.digest[:16]}-against-{champion}.json"
            report_file = receipt_file.with_suffix(".html")
        made = Promotion(
            code=verdict.code,
            reason=verdict.reason,
            name=name,
            version=version,
            published=_relative(in_service) if version else None,
            accuracy=challenger.verification.test_accuracy,
            test_examples=challenger.evaluation.test_examples,
            champion_version=champion,
            comparison=decision.comparison,
            best=decision.best,
            changes=differing,
            receipt=_relative(receipt_file),
            report=_relative(report_file),
        )
        card, page = _told(config, challenger, made)
        if published and version:
            source = store.path(challenger.export.saved_model)
            _publish(config, version, source, receipt, page, learned().as_bytes, decision.is_best)
        elif verdict.code != "unchanged":
            _file(receipt_file, receipt, report_file, page)
    show(card)
    if verdict.code == "refused_unverified":
        raise VerificationError(verdict.reason)
    log.info("%s: %s", verdict.code, verdict.reason)
    return made


def _as_receipt(
    decision: Decision, version: int | None, champion: int | None, differing: tuple[Change, ...]
) -> dict[str, Any]:
    """What the receipt says of the decision."""
    return {
        "status": decision.verdict.code.partition("_")[0],
        **decision.verdict._asdict(),
        "version": version,
        "champion": champion,
        "comparison": decision.comparison and decision.comparison.model_dump(),
        "best": decision.best and decision.best.model_dump(),
        "changes": [change.model_dump() for change in differing],
    }


def _with_look(name: str, decision: Decision) -> Decision:
    """The decision with the number of its look at the test images, which the ledger counts."""
    found = decision.comparison
    if found is None:
        return decision
    ledger = read_ledger(name)
    look = 1 if found.new > found.examples / 2 else ledger.looks + 1
    write_ledger(name, ledger.model_copy(update={"looks": look}))
    return decision._replace(comparison=found.model_copy(update={"look": look}))


def _told(config: RetrainConfig, challenger: Challenger, made: Promotion) -> tuple[str, str]:
    """The decision's card, Markdown, and the page of all cards, HTML."""
    try:
        card = decision_card.draw(config.gate, made, challenger.evaluation, challenger.data)
        # The version of an unchanged model has its page.
        return card, "" if made.code == "unchanged" else report.render(config, _cards(challenger, card), made.status)
    except Exception as error:  # whatever it is: what people look at must not keep a model from service
        log.warning("the report can't be drawn: %s: %s", type(error).__name__, error, exc_info=True)
        return ("The report could not be drawn; the receipt has all figures.",) * 2


def _cards(challenger: Challenger, decision: str) -> dict[str, str]:
    """The cards of a run by their names, the answer first."""
    return {
        "decision": decision,
        "evaluation": _card(challenger.evaluation),
        "training": _card(challenger.trained),
        "export": _card(challenger.verification),
        "data": _card(challenger.checked),
    }


def _card(record: Record) -> str:
    """A step's card, or a sentence in its place."""
    try:
        return store.path(record.card).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"The card {record.card} can't be read."


def _publish(
    config: RetrainConfig, version: int, source: Path, receipt: dict[str, Any], page: str, images: bytes, is_best: bool
) -> None:
    name, model = config.registry_name, model_identity(receipt)
    ledger = read_ledger(name)
    if model in ledger.rolled_back:  # forced: it is wanted again
        kept = tuple(digest for digest in ledger.rolled_back if digest != model)
        write_ledger(name, ledger.model_copy(update={"rolled_back": kept}))
    publishing.publish(name, version, source, receipt, page, images)
    if is_best:
        write_ledger(name, read_ledger(name).model_copy(update={"best": version}))
    try:
        publishing.prune(name, config.registry.keep)
    except OSError as error:  # it is in service: a second try would find it `unchanged`, and tell nobody
        log.warning("old versions of %s could not be removed; the next promotion tries again: %s", name, error)


def _file(receipt_file: Path, receipt: dict[str, Any], report_file: Path, page: str) -> None:
    """Keep the receipt and the report of a model that was not published, among those of its name."""
    receipt_file.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomically(report_file, page.encode())
    store.write_atomically(receipt_file, json.dumps(receipt, indent=2).encode())


def _relative(path: Path) -> str:
    return path.relative_to(store.root()).as_posix()
