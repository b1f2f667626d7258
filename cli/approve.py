"""`layerflow approve`: a person's answer about the candidate that waits."""

import contextlib
import getpass
import sys
from typing import Any
from uuid import UUID

from cli.prefect_server import configured_url, ensure_answering
from layerflow import store
from layerflow.errors import RegistryError, did_you_mean, printed
from layerflow.outcomes import Promotion
from layerflow.registry import candidates, layout, sharing
from layerflow.registry.ledger import Waiting


def approve(name: str, reject: bool, reason: str, by: str | None) -> None:
    """Answer the question about the candidate of a model, and print what became of it.

    A run that is suspended is resumed, and carries the answer out. Otherwise, it is carried out here.
    """
    asked, by = _waiting(name), by or _user()
    url = configured_url()
    if url:
        ensure_answering(url)
        if _resumed(asked, not reject, by, reason):
            word = "rejected" if reject else "approved"
            print(f"candidate {asked.number} of {name} is {word}; the run that asked continues, and carries it out")
            return
    with contextlib.redirect_stdout(sys.stderr):
        made = _settled(name, asked, not reject, by, reason, told=url is not None)
    live = f": {store.path(made.published)}" if made.published else ""
    version = f"version {made.version} is live{live}" if made.version else "no version is live"
    print(f"{made.code}: {made.reason}\n{version}")


def _user() -> str:
    """The name of the system user; nothing if the system has none for it, as in a container."""
    with contextlib.suppress(KeyError, OSError, ImportError):  # by Python's version and by the system
        return getpass.getuser()
    return ""


def _waiting(name: str) -> Waiting:
    sharing.refresh_all()
    waiting = {each: asked for each in layout.folders() if (asked := candidates.waiting(each))}
    if name in waiting:
        return waiting[name]
    names = list(waiting)
    known = f"only {', '.join(names)} has one" if names else "no model has one; run layerflow retrain"
    raise RegistryError(
        f"NAME must be a model with a candidate that waits for an answer, and {known}. Received: "
        f"{printed(name)}{did_you_mean(name, names)}"
    )


def _settled(name: str, asked: Waiting, approved: bool, by: str, reason: str, told: bool) -> Promotion:
    """Carry the answer out in this process, and tell the server, where one is configured."""
    from layerflow.registry import answers

    made = answers.settle(name, asked.number, answers.answer(approved, by, reason)).promotion
    if told:
        from tasks.approval import end_suspended
        from tasks.events import emit_decision

        emit_decision(made)
        end_suspended(made)
    return made


def _resumed(asked: Waiting, approved: bool, by: str, reason: str) -> bool:
    """Resume the run that asks with this answer, if it is suspended on this server, and say whether that is so."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from prefect.flow_runs import resume_flow_run

    given: dict[str, Any] = {"decision": "approve" if approved else "reject", "by": by, "reason": reason}
    with contextlib.suppress(ValueError, RuntimeError, PrefectException):
        run_id = UUID(asked.asked_by)
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
        if state and state.is_paused():
            resume_flow_run(run_id, given)
            return True
    return False
