"""A person in the gate: the question that suspends a run, its form, and the answer."""

import logging
import re
from typing import Literal, cast
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import read_flow_run_input
from prefect.input.run_input import keyset_from_base_key
from prefect.states import State
from pydantic import Field

from layerflow.cards.markdown import plain
from layerflow.config import RetrainConfig
from layerflow.errors import LayerflowError
from layerflow.outcomes import Promotion, Retrained
from layerflow.registry import candidates
from layerflow.registry.ledger import Waiting
from tasks.cards import key_of, show_card
from tasks.events import decided, emit_decision, emit_suspended
from tasks.policy import as_task

log = logging.getLogger("layerflow")


class Answer(RunInput):
    """The form of a suspended run."""

    decision: Literal["approve", "reject"] = Field(
        description="`approve` publishes exactly this candidate; `reject` keeps the live version."
    )
    by: str = Field(min_length=1, max_length=100, description="Who answers; recorded in the receipt.")
    reason: str = Field("", max_length=1000, description="Why; recorded in the receipt.")


def _this_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def asked_before() -> int | None:
    """The candidate about which this flow run has asked already; nothing in a run that was not suspended."""
    run = _this_run()
    keys = (run.empirical_policy.pause_keys if run else None) or set()
    found = (re.fullmatch(r"candidate-(\d+)", key) for key in keys)
    return next((int(each[1]) for each in found if each), None)


def to_ask(made: Promotion) -> int | None:
    """The candidate about which this flow run must ask, if it can: Prefect suspends runs of deployments only."""
    run = _this_run()
    if made.status != "waiting" or run is None or made.asked_by != str(run.id):
        return None
    return made.candidate if run.deployment_id and not run.parent_task_run_id else None


def ask_a_person(name: str, number: int) -> Retrained:
    """Suspend the run until a person answers, and carry the answer out. The process ends, and another one continues."""
    asked = candidates.waiting(name)
    told, seconds = f"Publish candidate {number} of {name}?", None
    if asked and asked.number == number:
        reason = plain(asked.reason[:1].upper() + asked.reason[1:])
        card = f"[the decision's card](/artifacts/key/{key_of(f'decision-{name}')})"
        told = f"**{told}** {reason}. All figures are on {card}."
        seconds = max(1, int((asked.until - candidates.now()).total_seconds()))
    form = Answer.with_initial_data(description=told)
    try:
        given = suspend_flow_run(wait_for_input=form, timeout=seconds, key=f"candidate-{number}")
    except Pause:
        emit_suspended()
        raise
    return settle_candidate(name, number, given.decision == "approve", given.by, given.reason)


def _settle(name: str, number: int, approved: bool, by: str, reason: str) -> Retrained:
    """Publish a candidate or keep the live version, as a person says, and tell what became of it."""
    from layerflow.registry import answers

    def show(config: RetrainConfig, card: str) -> None:
        show_card(f"decision-{name}", card, "Start here: published or not, why, and what is next", config)

    made = answers.settle(name, number, answers.answer(approved, by, reason), show)
    emit_decision(made.promotion)
    return made


def _settle_candidate(name: str, number: int, approved: bool, by: str, reason: str) -> State[Retrained]:
    """Publish a candidate or keep the live version, as a person says."""
    made = _settle(name, number, approved, by, reason)
    return decided(made.promotion, made)


settle_candidate = cast(  # Prefect unwraps a state that a task returns; its types don't show it
    "Task[..., Retrained]",
    as_task(_settle_candidate, name="settle_candidate", run_name="settle-candidate-{number}-of-{name}"),
)


def _carry_out_left_answer(name: str) -> None:
    """Carry out the answer that a run was given and could not carry out itself.

    Prefect cancels a resumed run while another one of its deployment is going, and its process may be killed.
    """
    asked = candidates.waiting(name)
    given = _left_answer(asked) if asked else None
    if asked and given:
        try:
            _settle(name, asked.number, given.decision == "approve", given.by, given.reason)
        except LayerflowError as error:  # of a damaged candidate, which must not keep this run from its own decision
            log.warning("the answer of %s about candidate %d can't be carried out: %s", given.by, asked.number, error)


def _left_answer(asked: Waiting) -> Answer | None:
    """What the form was given, of a run that is over without having carried it out."""
    try:
        run_id, key = UUID(asked.asked_by), keyset_from_base_key(f"suspended-candidate-{asked.number}")["response"]
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
        left = state and state.is_final() and read_flow_run_input(key, flow_run_id=run_id)
        return Answer.model_validate(left) if left else None
    except Exception as error:  # whatever it is: the candidate still waits, and `layerflow approve` answers
        log.debug("whether the run %s was answered is not known: %s", asked.asked_by, error)
        return None


def end_closed_questions(name: str) -> None:
    """Carry out an answer that was left, tell what became of closed questions, and end the runs that asked them."""
    from layerflow.registry import answers

    _carry_out_left_answer(name)
    for made in answers.closed(name):
        emit_decision(made)
        end_suspended(made)


def end_suspended(made: Promotion) -> None:
    """End the run that asked, if it is still suspended, with what became of its candidate."""
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(UUID(made.asked_by))
            if run.state and run.state.is_paused():
                client.set_flow_run_state(run.id, decided(made), force=True)
    except Exception as error:  # whatever it is: nothing else depends on what the UI shows of an older run
        log.debug("the run %s that asked about candidate %s can't be ended: %s", made.asked_by, made.candidate, error)
