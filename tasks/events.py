"""What happened to a published model, as events on which users hang automations, and as states of runs."""

from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, State

from layerflow.outcomes import Promotion
from tasks import assets

#: What an event says of a decision.
_ESSENTIALS = {
    *("code", "reason", "version", "champion_version", "accuracy", "test_examples", "receipt"),
    *("candidate", "until", "approval"),
}
#: What it says of the comparison with the live version: by how much the model is better, in what, and the interval.
_DIFFERENCE = {"metric", "difference", "difference_low", "difference_high"}


def emit_model_event(what: str, name: str, details: dict[str, Any]) -> None:
    """Emit the event ``layerflow.model.<what>`` about the model ``name``, on which users hang automations."""
    resource = {"prefect.resource.id": f"layerflow.model.{name}", "prefect.resource.name": name}
    emit_event(event=f"layerflow.model.{what}", resource=resource, payload=details)


def emit_suspended() -> None:
    """Emit that this flow run is suspended, so that nobody waits for its heartbeats.

    Prefect's own event follows that of the run's start, and a server that was restarted since holds it back for a
    quarter of an hour; the automation that looks for heartbeats waits for ten minutes.
    """
    resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.name": flow_run.name or ""}
    emit_event(event="layerflow.run.suspended", resource=resource)


def emit_decision(made: Promotion) -> None:
    """Emit what was decided about a model."""
    if made.status != "unchanged":
        details = made.model_dump(mode="json", include=_ESSENTIALS)
        found = made.comparison and made.comparison.model_dump(include=_DIFFERENCE)
        emit_model_event(made.status, made.name, details | {"comparison": found})
    if made.status == "promoted":
        assets.published(made)


def decided(made: Promotion, data: Any = None) -> State[Any]:
    """The state of a run that ended with a decision, such as `Kept: worse`."""
    kept = made.code.removeprefix("kept_").replace("_", " ")
    name = f"Kept: {kept}" if made.status == "kept" else made.status.capitalize()
    return Completed(name=name, message=f"{made.code}: {made.reason}", data=data)
