"""What becomes of a proved model: the gate's rules in their order."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError
from layerflow.export import process
from layerflow.outcomes import Comparison
from layerflow.registry import gate, layout, versions
from layerflow.registry.comparison import Rival, compare
from layerflow.registry.figures import below_metric_floor
from layerflow.registry.gate import Verdict
from layerflow.registry.known_images import KnownImages
from layerflow.registry.ledger import Ledger, read_ledger
from layerflow.registry.receipt import Challenger
from layerflow.settings.gate import GateConfig

log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What was decided, and what it was decided by.

    Attributes:
        comparison: With the live version, where there is one that can be compared.
        best: With the best version, where that is another one.
        live_is_best: Whether the live version is, where that is this very model.
    """

    verdict: Verdict
    comparison: Comparison | None = None
    best: Comparison | None = None
    live_is_best: bool = False

    @property
    def is_best(self) -> bool:
        """Whether later models are measured against this one, once it is published.

        After a publication without a comparison, or against it, there is no better one to measure by.
        """
        if self.verdict.code == "promoted_formats":
            return self.live_is_best
        if self.verdict.code not in ("promoted_not_worse", "promoted_better"):
            return True
        measured = self.best or self.comparison
        return measured is None or measured.difference >= 0


def rival_of(name: str, version: int) -> Rival:
    """A published version of a model."""
    receipt, damage = versions.receipt_of(name, version), versions.damage(name, version)
    return Rival(version, layout.home(name) / str(version), receipt, damage)


def _with_files(name: str, rival: Rival) -> Rival:
    """The same version with its files here, where only the bucket had them."""
    if rival.folder.is_dir():
        return rival
    try:
        versions.folder_of(name, rival.version)
    except DamagedError as error:
        return rival._replace(damage=str(error))
    return rival_of(name, rival.version)


def decide(
    config: RetrainConfig,
    challenger: Challenger,
    model: str,
    champion: int | None,
    learned: Callable[[], KnownImages],
    verifier: process.Verifier | None = None,
    bring: Callable[[], None] = lambda: None,
) -> Decision:
    """Apply the gate: first what holds whatever is preferred, then the preference, which ``gate.force`` overrules.

    Args:
        model: The challenger's identity, as the ledger knows it.
        champion: The live version, if there is one.
        learned: What gives the images that the challenger has learned from.
        verifier: What scores both models; default: one that ends with this call.
        bring: Called before a file of the challenger is read.

    Raises:
        VerificationError: If the challenger can't be scored.
        DamagedError: If the test images or the registry's ledger are not as they were written.
    """
    rules = config.gate
    live = rival_of(config.registry_name, champion) if champion else None
    if unproved := _unproved(challenger):
        return Decision(Verdict("refused_unverified", unproved))
    if live and live.is_sound and live.model == model:
        same = _same_model(challenger, live)
        if same.code == "promoted_formats":
            bring()
        return Decision(same, live_is_best=versions.best_of(config.registry_name) in (None, live.version))
    bring()
    live = _with_files(config.registry_name, live) if live else None
    if floor := _below_floor(rules, challenger, live):
        return Decision(Verdict("kept_below_floor", floor))
    unwanted = _unwanted(read_ledger(config.registry_name), model)
    if unwanted and not rules.force:  # nothing that a comparison finds would change it
        return Decision(unwanted)
    found = compare(rules, challenger, live, learned, verifier) if live else None
    comparison = found if isinstance(found, Comparison) else None
    if comparison and (slow := gate.too_slow(rules, comparison)):
        return Decision(Verdict("kept_too_slow", slow), comparison)
    if isinstance(found, str) and rules.max_latency_ratio is not None:
        unknown = f"{found}, so that gate.max_latency_ratio {rules.max_latency_ratio} can't be checked"
        return Decision(Verdict("kept_not_comparable", unknown))
    best = _with_the_best(config, challenger, comparison, learned, verifier)
    accuracy = challenger.verification.test_accuracy
    verdict = unwanted or _preferred(rules, found, best, accuracy)
    if rules.force and verdict.code.startswith("kept"):
        verdict = Verdict("promoted_forced", f"forced ({rules.force}), against {verdict.code}: {verdict.reason}")
    return Decision(verdict, comparison, best)


def _same_model(challenger: Challenger, live: Rival) -> Verdict:
    """The decision about a model that is in service already: it is published again only to have more formats."""
    same = f"version {live.version} is this very model"
    new, lost = challenger.formats_beyond(live.receipt)
    if new and not lost:
        return Verdict("promoted_formats", f"{same}, and has no {' and no '.join(new)}")
    if new:
        same += f"; it has {' and '.join(lost)}, which this run has not, so name all in export.formats to add {new[0]}"
    return Verdict("unchanged", same)


def _unwanted(ledger: Ledger, model: str) -> Verdict | None:
    """Why people do not want this very model, or nothing."""
    if model in ledger.rolled_back:
        return Verdict("kept_rolled_back", "this very model was live and was rolled back")
    if answer := ledger.rejected.get(model):
        return Verdict("kept_rejected", f"this very model was {answer}")
    return None


def _unproved(challenger: Challenger) -> str | None:
    """Why the verification does not prove this model, or nothing."""
    evaluation, verified = challenger.evaluation, challenger.verification
    if verified.export_digest != challenger.export.digest:
        return "The verification must be of the model that is to be published; it is of another."
    if challenger.formats and challenger.formats.export_digest != challenger.export.digest:
        return "The formats must be of the model that is to be published; they are of another."
    if differs := gate.disagreement(evaluation, verified):
        return (
            f"Evaluation and verification must agree on the model that is to be published; {differs}. Delete "
            f"{store.path(evaluation.folder)} and re-run the command."
        )
    return None


def _below_floor(rules: GateConfig, challenger: Challenger, live: Rival | None) -> str | None:
    evaluation, verified = challenger.evaluation, challenger.verification
    if floor := gate.below_floor(rules, evaluation, verified) or below_metric_floor(rules, challenger.data, evaluation):
        return floor
    if live and live.is_sound and rules.classes != "same":
        return gate.below_new_class_floor(rules, evaluation, verified, live.classes)
    return None


def _with_the_best(
    config: RetrainConfig,
    challenger: Challenger,
    comparison: Comparison | None,
    learned: Callable[[], KnownImages],
    verifier: process.Verifier | None,
) -> Comparison | None:
    """The comparison with the best version, where that is another than the live one."""
    best = versions.best_of(config.registry_name)
    if comparison is None or best is None or best == comparison.champion_version:
        return None
    rival = _with_files(config.registry_name, rival_of(config.registry_name, best))
    found = compare(config.gate, challenger, rival, learned, verifier)
    if isinstance(found, Comparison):
        return found
    log.warning("the best version, %d, can't be compared: %s; the live version alone decides", best, found)
    return None


def _preferred(rules: GateConfig, found: Comparison | str | None, best: Comparison | None, accuracy: float) -> Verdict:
    """Which of the models is preferred: the challenger, where there is no live version."""
    if found is None:
        return Verdict("promoted_first", f"accuracy {accuracy:.4f}, and there was no live version")
    if isinstance(found, Comparison):
        verdict = gate.in_slices(gate.judge(rules, found), found)
        return gate.against_best(rules, verdict, best) if best else verdict
    if rules.not_comparable == "floors_only":
        return Verdict("promoted_not_comparable", f"the floors are met, and {found}")
    return Verdict("kept_not_comparable", found)
