"""The answer to the question about a candidate, or what closes it instead.

The ledger's ``waiting`` is the one open question of a model. It is closed by an answer, by a newer run, or by its date.
Then the receipt, the report and the run of the candidate are kept in ``receipts/<name>/candidate-<N>/``. Whatever kills
the process in between, the same call again ends with the same result.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, RegistryError, mask
from layerflow.outcomes import Approval, DecisionCode, Promotion, Retrained
from layerflow.registry import candidates, layout, pages, publishing, shared, sharing, versions
from layerflow.registry.ledger import Closed, Waiting, read_ledger, write_ledger
from layerflow.registry.receipt import Challenger

log = logging.getLogger(__name__)


def answer(approved: bool, by: str, reason: str) -> Approval:
    """An answer that is given now, as lines of printable text; secrets in addresses are masked."""
    by, reason = (_one_line(mask(text)) for text in (by, reason))
    when = candidates.now().isoformat(timespec="seconds")
    return Approval(approved=approved, by=by or "somebody", reason=reason, when=when)


def _one_line(text: str) -> str:
    """The text without what could steer a terminal that shows it."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def closed(name: str) -> list[Promotion]:
    """Record what became of the questions that were closed, or whose time is over, and return it.

    The caller tells whoever asked. The live version stays as it is.
    """
    with sharing.changing(name):
        _expire(name)
        return _record_closed(name)


def _expire(name: str) -> None:
    ledger = read_ledger(name)
    if ledger.waiting and candidates.now() >= ledger.waiting.until:
        _close(name, "kept_unanswered", "", next(iter(versions.numbers(name)), None))


def _close(name: str, code: DecisionCode, reason: str, version: int | None, given: Approval | None = None) -> None:
    write_ledger(name, candidates.close(read_ledger(name), code, reason, version, given))


def _record_closed(name: str) -> list[Promotion]:
    recorded = []
    for each in read_ledger(name).closed:
        number = each.question.number
        try:
            recorded.append(_recorded(name, each))
        except DamagedError as error:
            log.warning("what became of candidate %d of %s can't be recorded: %s", number, name, error)
        ledger = read_ledger(name)
        left = tuple(other for other in ledger.closed if other.question.number != number)
        write_ledger(name, ledger.model_copy(update={"closed": left}))
        shutil.rmtree(candidates.folder_of(name, number), ignore_errors=True)
        log.info("%s: candidate %d of %s: %s", each.code, number, name, each.reason)
    return recorded


def settle(
    name: str, number: int, given: Approval, show: Callable[[RetrainConfig, str], None] = lambda config, card: None
) -> Retrained:
    """Carry out the answer about a candidate: publish exactly its bytes, or keep the live version.

    An answer that comes too late changes nothing: what became of the candidate is returned then.

    Args:
        show: Called with the settings of the run that made the candidate, and the decision's card, Markdown.

    Raises:
        RegistryError: If there is no such candidate.
        DamagedError: If the candidate is not as it was when the question was asked, or its records can't be read.
    """
    with sharing.changing(name):
        _expire(name)
        asked, live = read_ledger(name).waiting, versions.champion_of(name)
        if asked and asked.number == number:
            if not given.approved:
                _close(name, "kept_rejected", given.text, live, given)
            elif live != asked.live and not _is_in(name, live, number):
                _close(name, "kept_overtaken", _overtaken(asked, live), live, given)
            else:
                _publish(name, asked, given, live)
        _record_closed(name)
        file = candidates.answered(name, number) / candidates.RUN_FILE
        shared.bring_files(file.parent)
        if not file.is_file():
            raise RegistryError(f"Candidate {number} of {name} must be one that was asked about. It is not.")
        config, made = candidates.read_run(file)
    show(config, pages.told(config, _challenger(made), made.promotion)[0])
    return made


def _overtaken(asked: Waiting, live: int | None) -> str:
    before = f"version {asked.live} was live" if asked.live else "no version was live"
    after = f"version {live} is live" if live else "none is"
    return f"{before} when the question was asked, and {after} now; re-run the command to decide again"


def _is_in(name: str, version: int | None, number: int) -> bool:
    """Whether a version is this candidate: the process that published it may have been killed before it said so."""
    receipt = versions.receipt_of(name, version) if version else None
    return bool(receipt and receipt["decision"].get("candidate") == number)


def _publish(name: str, asked: Waiting, given: Approval, live: int | None) -> None:
    if damage := candidates.damage(name, asked):
        raise DamagedError(
            f"Candidate {asked.number} of {name} must be, byte for byte, what the question was about, and {damage}; "
            f"reject it with `layerflow approve {name} --reject`, and re-run the command that made it."
        )
    folder, done = candidates.folder_of(name, asked.number), _is_in(name, live, asked.number)
    version, reason = live if done else publishing.next_version(name), f"{asked.reason}; {given.text}"
    if not done:
        final = _final(name, Closed(question=asked, code=asked.code, reason=reason, version=version, approval=given))
        images = (folder / layout.IMAGES).read_bytes()
        publishing.release(name, final.config.registry, folder, final.receipt, final.page, images, asked.is_best)
    _close(name, asked.code, reason, version, given)


class _Final(NamedTuple):
    """What is kept of an answered candidate."""

    config: RetrainConfig
    run: Retrained
    receipt: dict[str, Any]
    page: str


def _final(name: str, closed: Closed) -> _Final:
    """The run of a candidate as it ended.

    Raises:
        DamagedError: If the candidate's own records can't be read.
    """
    number, version = closed.question.number, closed.version
    folder, kept = candidates.folder_of(name, number), candidates.answered(name, number)
    config, run = candidates.read_run(folder / layout.RUN)
    published, place = closed.code.startswith("promoted"), layout.home(name) / str(version)
    made = run.promotion.model_copy(
        update={
            "code": closed.code,
            "reason": closed.reason,
            "version": version,
            "published": pages.relative(place) if version else None,
            "receipt": pages.relative(place / layout.RECEIPT if published else kept / candidates.RECEIPT_FILE),
            "report": pages.relative(place / layout.REPORT if published else kept / candidates.REPORT_FILE),
            "until": "",
            "approval": closed.approval,
        }
    )
    page = pages.told(config, _challenger(run), made)[1]
    return _Final(config, run.model_copy(update={"promotion": made}), _receipt(folder / layout.RECEIPT, made), page)


def _challenger(run: Retrained) -> Challenger:
    return Challenger(*(getattr(run, part) for part in Challenger._fields))


def _receipt(file: Path, made: Promotion) -> dict[str, Any]:
    """The receipt of a candidate with what became of it."""
    receipt = candidates.read_receipt(file)
    decided = made.model_dump(mode="json", include={"code", "reason", "version", "approval", "until"})
    version = made.version if made.status == "promoted" else None
    return receipt | {"version": version, "decision": receipt["decision"] | decided | {"status": made.status}}


def _recorded(name: str, closed: Closed) -> Promotion:
    """Keep what became of a candidate; the run comes last, for where it is, all is."""
    final, kept = _final(name, closed), candidates.answered(name, closed.question.number)
    pages.file(kept / candidates.RECEIPT_FILE, final.receipt, kept / candidates.REPORT_FILE, final.page)
    store.write_atomically(kept / candidates.RUN_FILE, candidates.run_as_bytes(final.config, final.run))
    shared.keep_files(kept / candidates.RUN_FILE)
    return final.run.promotion
