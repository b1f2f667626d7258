"""A person in the gate: which decisions are theirs, and how the question is asked."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError
from layerflow.outcomes import Comparison, DecisionCode, Promotion, Retrained
from layerflow.registry import candidates, layout
from layerflow.registry.gate import Verdict
from layerflow.registry.ledger import Waiting, read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.receipt import Challenger
from layerflow.settings.gate import GateConfig

#: What a decision says of its question.
FACTS = ("candidate", "asked_by", "until")


class Question(NamedTuple):
    """A question that is to be asked.

    Attributes:
        verdict: What is said of the model while it waits.
        waiting: What the ledger gets, but for the digest of the candidate and ``is_best``.
    """

    verdict: Verdict
    waiting: Waiting

    @property
    def facts(self) -> dict[str, Any]:
        """What the decision says of it, by the names of ``FACTS``."""
        asked = self.waiting
        return dict(zip(FACTS, (asked.number, asked.asked_by, asked.until.isoformat(timespec="seconds")), strict=True))


def question_of(
    config: RetrainConfig,
    challenger: Challenger,
    receipt: dict[str, Any],
    live: int | None,
    theirs: dict[str, Any] | None,
    verdict: Verdict,
    found: Comparison | None,
    flow_run_id: str,
) -> Question | None:
    """The question about a challenger that the gate would publish, or nothing if nobody has to be asked.

    Args:
        receipt: Of the challenger.
        live: The live version, if there is one.
        theirs: The receipt of the live version, if it has one.
        verdict: The gate's.
        found: The comparison with the live version, if there is one.
        flow_run_id: Of the flow run that asks.
    """
    new = set(challenger.data.classes) - set(theirs["data"]["classes"]) if theirs else set[str]()
    why = why_ask(config.gate, verdict.code, found, new)
    if why is None:
        return None
    number = read_ledger(config.registry_name).asked + 1
    waiting = Waiting(
        number=number,
        sums="",
        model=model_identity(receipt),
        live=live,
        code=verdict.code,
        reason=verdict.reason,
        is_best=False,
        asked_by=flow_run_id,
        until=candidates.now() + timedelta(days=config.gate.approval_days),
    )
    reason = f"{verdict.reason}. A person must approve candidate {number}, because {why}"
    return Question(Verdict("waiting_for_approval", reason), waiting)


def why_ask(
    rules: GateConfig, code: DecisionCode, found: Comparison | None, new_classes: Collection[str]
) -> str | None:
    """Why a person must approve what the gate would publish, or nothing.

    Args:
        code: What the gate decided.
        found: The comparison with the live version, if there is one.
        new_classes: Those that the live version does not know.
    """
    if rules.approval == "never" or not code.startswith("promoted") or code == "promoted_formats":
        return None  # of the live version somebody has approved, or nobody had to
    if rules.approval == "always":
        return "gate.approval is always"
    if code == "promoted_first":
        return "it is the first version"
    if code == "promoted_forced":
        return "it is forced"
    if code == "promoted_not_comparable":
        return "it can't be compared with the live version"
    if new_classes:
        return f"the class {min(new_classes)} is new"
    if code == "promoted_not_worse" and found and found.difference_low <= 0:
        return "the difference is within noise"
    return None


def asked_about(rules: GateConfig, name: str, model: str, live: int | None, challenger: Challenger) -> Promotion | None:
    """The open question about this very model against this live version.

    Nothing is returned if its candidate is damaged, or lacks a format that the challenger has.
    """
    asked = read_ledger(name).waiting
    if rules.approval == "never" or asked is None or (asked.model, asked.live) != (model, live):
        return None
    if candidates.now() >= asked.until or candidates.damage(name, asked):
        return None
    try:
        folder = candidates.folder_of(name, asked.number)
        if challenger.formats_beyond(candidates.read_receipt(folder / layout.RECEIPT))[0]:
            return None
        made = candidates.read_run(folder / layout.RUN)[1].promotion
    except DamagedError:  # of another layerflow: it is asked about anew
        return None
    reason = f"this very model is candidate {asked.number}, which waits for an answer until {made.until}"
    return made.model_copy(update={"reason": reason})


def ask(
    config: RetrainConfig,
    challenger: Challenger,
    made: Promotion,
    receipt: dict[str, Any],
    page: str,
    images: bytes,
    asked: Waiting,
) -> None:
    """Put the model among the candidates, and make it the one that waits; an older question is obsolete then.

    Args:
        asked: The question, without the digest that its candidate gets here.
    """
    run = candidates.run_as_bytes(config, Retrained(**challenger._asdict(), promotion=made))
    source = store.path(challenger.export.saved_model)
    sums = candidates.put(made.name, asked.number, source, receipt, page, images, run)
    older = f"candidate {asked.number}, of a newer run, took its place"
    ledger = candidates.close(read_ledger(made.name), "kept_obsolete", older, made.version)
    update = {"asked": asked.number, "waiting": asked.model_copy(update={"sums": sums})}
    write_ledger(made.name, ledger.model_copy(update=update))
