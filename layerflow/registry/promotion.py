"""The decision whether a proved model is published, and the receipt of how it came about."""

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import VerificationError, mask
from layerflow.export import process
from layerflow.outcomes import Promotion
from layerflow.registry import approval, candidates, layout, pages, publishing, sharing, versions
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
    verifier: process.Verifier | None = None,
    flow_run_id: str = "",
    bring: Callable[[], None] = lambda: None,
) -> Promotion:
    """Publish the challenger as the next version if the gate lets it, or keep the champion; leave a receipt either way.

    The champion is the highest published version. Both are scored as they ship, in the verifying process, on the test
    examples that neither has learned from. Where ``gate.approval`` wants a person, the challenger waits as a candidate.

    Args:
        show: Called with the decision's card, Markdown, once all is done; before a refusal is raised, too.
        verifier: What has verified the challenger, and scores both; default: one of its own.
        flow_run_id: Of the flow run that asks, where a person must approve.
        bring: Called before a file of the challenger is read, which is not if it is unchanged.

    Raises:
        VerificationError: If the verification is not of this export, or disagrees with the evaluation.
        DamagedError: If the export, the test examples or the registry's ledger are not as they were written.
    """
    name = config.registry_name
    with sharing.changing(name):
        champion = versions.champion_of(name)
        receipt = receipt_for(config, challenger, flow_run)
        asked = approval.asked_about(config.gate, name, model_identity(receipt), champion, challenger)
        if asked:
            made, card = asked, pages.told(config, challenger, asked)[0]
        else:
            made, card = _decided(config, challenger, receipt, champion, verifier, flow_run_id, bring)
    show(card)
    if made.status == "refused":
        raise VerificationError(made.reason)
    log.info("%s: %s", made.code, made.reason)
    return made


def _decided(
    config: RetrainConfig,
    challenger: Challenger,
    receipt: dict[str, Any],
    champion: int | None,
    verifier: process.Verifier | None,
    flow_run_id: str,
    bring: Callable[[], None],
) -> tuple[Promotion, str]:
    """The decision, carried out, and its card."""
    name, model = config.registry_name, model_identity(receipt)
    theirs = versions.receipt_of(name, champion) if champion else None
    learned = cache(partial(learned_by, challenger))  # it reads all of the data
    decision = decide(config, challenger, model, champion, learned, verifier, bring)
    verdict = decision.verdict._replace(reason=mask(decision.verdict.reason))  # a forced one repeats its user
    decision = _with_look(name, decision._replace(verdict=verdict))
    found = decision.comparison
    question = approval.question_of(config, challenger, receipt, champion, theirs, verdict, found, flow_run_id)
    verdict = question.verdict if question else verdict
    published = verdict.code.startswith("promoted")
    version = publishing.next_version(name) if published else champion
    in_service = layout.home(name) / str(version)
    receipt_file, report_file = _files(challenger, verdict.code, champion, in_service, question)
    made = Promotion(
        code=verdict.code,
        reason=verdict.reason,
        name=name,
        version=version,
        published=pages.relative(in_service) if version else None,
        accuracy=challenger.verification.test_accuracy,
        test_examples=challenger.evaluation.test_examples,
        champion_version=champion,
        comparison=found,
        best=decision.best,
        changes=changes(theirs, receipt) if theirs else (),
        receipt=pages.relative(receipt_file),
        report=pages.relative(report_file),
        **(question.facts if question else {}),
    )
    receipt |= {"version": version if published else None, "decision": _as_receipt(made)}
    card, page = pages.told(config, challenger, made)
    if question:
        asked = question.waiting.model_copy(update={"is_best": decision.is_best})
        approval.ask(config, challenger, made, receipt, page, learned().as_bytes, asked)
    elif published:
        source, images = store.path(challenger.export.saved_model), learned().as_bytes
        publishing.release(name, config.registry, source, receipt, page, images, decision.is_best)
        older = f"version {version}, of a newer run, was published"
        write_ledger(name, candidates.close(read_ledger(name), "kept_obsolete", older, version))
    elif verdict.code != "unchanged":
        pages.file(receipt_file, receipt, report_file, page)
    return made, card


def _files(
    challenger: Challenger, code: str, champion: int | None, in_service: Path, question: approval.Question | None
) -> tuple[Path, Path]:
    """Where the receipt and the report of a decision are kept."""
    if question:
        in_service = candidates.folder_of(in_service.parent.name, question.waiting.number)
    elif code != "unchanged" and not code.startswith("promoted"):
        kept = store.root() / "receipts" / in_service.parent.name
        receipt = kept / f"{challenger.export.digest[:16]}-against-{champion}.json"
        return receipt, receipt.with_suffix(".html")
    return in_service / layout.RECEIPT, in_service / layout.REPORT


def _as_receipt(made: Promotion) -> dict[str, Any]:
    """What the receipt says of the decision."""
    told = {"code", "reason", "version", "comparison", "best", "changes", *(approval.FACTS if made.candidate else ())}
    return {"status": made.status, "champion": made.champion_version, **made.model_dump(mode="json", include=told)}


def _with_look(name: str, decision: Decision) -> Decision:
    """The decision with the number of its look at the test images, which the ledger counts."""
    found = decision.comparison
    if found is None:
        return decision
    ledger = read_ledger(name)
    look = 1 if found.new > found.examples / 2 else ledger.looks + 1
    write_ledger(name, ledger.model_copy(update={"looks": look}))
    return decision._replace(comparison=found.model_copy(update={"look": look}))
