"""The decision whether a proved model is published, and the receipt of how it came about."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.cards import decision as decision_card
from layerflow.cards import report
from layerflow.config import RetrainConfig
from layerflow.errors import VerificationError, mask
from layerflow.export import verification
from layerflow.outcomes import Comparison, Promotion
from layerflow.records import Record
from layerflow.registry import gate, layout, publishing
from layerflow.registry.comparison import Champion, compare, learned_by
from layerflow.registry.gate import Verdict, below_floor, below_new_class_floor, judge
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.receipt import Challenger, changes, receipt_for
from layerflow.settings.gate import GateConfig

log = logging.getLogger(__name__)
_TAKEN_BACK = Verdict("kept_rolled_back", "this very model was live and was rolled back")


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
        live = Champion.of(name)
        champion = live.version if live else None
        receipt = receipt_for(config, challenger, flow_run)
        model = model_identity(receipt)
        verdict, comparison = _decide(config, challenger, model, live, verifier)
        verdict = verdict._replace(reason=mask(verdict.reason))  # a forced one repeats what its user wrote
        published = verdict.code.startswith("promoted")
        version = publishing.next_version(name) if published else champion
        differing = changes(live.receipt, receipt) if live and live.receipt else ()
        receipt |= {
            "version": version if published else None,
            "decision": {
                "status": verdict.code.partition("_")[0],
                **verdict._asdict(),
                "version": version,
                "champion": champion,
                "comparison": comparison.model_dump() if comparison else None,
                "changes": [change.model_dump() for change in differing],
            },
        }
        in_service = layout.home(name) / str(version)
        if published or verdict.code == "unchanged":
            receipt_file, report_file = in_service / layout.RECEIPT, in_service / layout.REPORT
        else:
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
            comparison=comparison,
            changes=differing,
            receipt=_relative(receipt_file),
            report=_relative(report_file),
        )
        card, page = _told(config, challenger, made)
        if published and version:
            _publish(config, version, challenger, model, receipt, page)
        elif verdict.code != "unchanged":
            _file(receipt_file, receipt, report_file, page)
    show(card)
    if verdict.code == "refused_unverified":
        raise VerificationError(verdict.reason)
    log.info("%s: %s", verdict.code, verdict.reason)
    return made


def _decide(
    config: RetrainConfig,
    challenger: Challenger,
    model: str,
    champion: Champion | None,
    verifier: verification.Verifier | None,
) -> tuple[Verdict, Comparison | None]:
    """The gate: first what holds whatever is preferred, then the preference, which alone ``gate.force`` overrules."""
    rules, (evaluation, verified) = config.gate, (challenger.evaluation, challenger.verification)
    if verified.export_digest != challenger.export.digest:
        return Verdict(
            "refused_unverified",
            "The verification must be of the model that is to be published; it is of another.",
        ), None
    if differs := gate.disagreement(evaluation, verified):
        return Verdict(
            "refused_unverified",
            f"Evaluation and verification must agree on the model that is to be published; {differs}. Delete "
            f"{store.path(evaluation.folder)} and re-run the command.",
        ), None
    known = champion if champion and champion.receipt and not champion.damage else None
    if known and known.receipt and model_identity(known.receipt) == model:
        return Verdict("unchanged", f"version {known.version} is this very model"), None
    if floor := below_floor(rules, evaluation, verified):
        return Verdict("kept_below_floor", floor), None
    new_class = known and rules.classes != "same" and below_new_class_floor(rules, evaluation, verified, known.classes)
    if new_class:
        return Verdict("kept_below_floor", new_class), None
    taken_back = model in read_ledger(config.registry_name).rolled_back
    if taken_back and not rules.force:  # nothing that a comparison finds would change it
        return _TAKEN_BACK, None
    found = compare(rules, challenger, champion, verifier) if champion else None
    comparison = found if isinstance(found, Comparison) else None
    if comparison and (slow := gate.too_slow(rules, comparison)):
        return Verdict("kept_too_slow", slow), comparison
    if isinstance(found, str) and rules.max_latency_ratio is not None:
        unknown = f"{found}, so that gate.max_latency_ratio {rules.max_latency_ratio} can't be checked"
        return Verdict("kept_not_comparable", unknown), None
    verdict = _TAKEN_BACK if taken_back else _preferred(rules, found, verified.test_accuracy)
    if rules.force and verdict.code.startswith("kept"):
        verdict = Verdict("promoted_forced", f"forced ({rules.force}), against {verdict.code}: {verdict.reason}")
    return verdict, comparison


def _preferred(rules: GateConfig, found: Comparison | str | None, accuracy: float) -> Verdict:
    """Which of the two models is preferred, the challenger where there is no champion."""
    if found is None:
        return Verdict("promoted_first", f"accuracy {accuracy:.4f}, and there was no live version")
    if isinstance(found, Comparison):
        return judge(rules, found)
    if rules.not_comparable == "floors_only":
        return Verdict("promoted_not_comparable", f"the floors are met, and {found}")
    return Verdict("kept_not_comparable", found)


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
    config: RetrainConfig, version: int, challenger: Challenger, model: str, receipt: dict[str, Any], page: str
) -> None:
    name = config.registry_name
    ledger = read_ledger(name)
    if model in ledger.rolled_back:  # forced: it is wanted again
        kept = tuple(digest for digest in ledger.rolled_back if digest != model)
        write_ledger(name, ledger.model_copy(update={"rolled_back": kept}))
    images = learned_by(challenger).as_bytes
    publishing.publish(name, version, store.path(challenger.export.saved_model), receipt, page, images)
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
