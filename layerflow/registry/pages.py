"""What people read of a decision: its card, and the page of all cards, kept with the receipt."""

import json
import logging
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.cards import decision as decision_card
from layerflow.cards import report
from layerflow.config import RetrainConfig
from layerflow.outcomes import Promotion
from layerflow.records import Record
from layerflow.registry import shared
from layerflow.registry.receipt import Challenger

log = logging.getLogger(__name__)


def told(config: RetrainConfig, challenger: Challenger, made: Promotion) -> tuple[str, str]:
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
        **({"formats": _card(challenger.formats)} if challenger.formats else {}),
        **({"figures": _card(challenger.own_metrics)} if challenger.own_metrics else {}),
        "data": _card(challenger.checked),
        **({"findings": _card(challenger.own_checks)} if challenger.own_checks else {}),
    }


def _card(record: Record) -> str:
    """A step's card, or a sentence in its place."""
    try:
        return store.path(record.card).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"The card {record.card} can't be read."


def file(receipt_file: Path, receipt: dict[str, Any], report_file: Path, page: str) -> None:
    """Keep the receipt and the report of a model that was not published, among those of its name."""
    receipt_file.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomically(report_file, page.encode())
    store.write_atomically(receipt_file, json.dumps(receipt, indent=2).encode())
    shared.keep_files(report_file, receipt_file)


def relative(path: Path) -> str:
    """A path below the store, as records hold it."""
    return path.relative_to(store.root()).as_posix()
