"""What happened to a published model, as events on which users hang automations."""

from typing import Any

from prefect.events import emit_event


def emit_model_event(what: str, name: str, details: dict[str, Any]) -> None:
    """Emit the event ``layerflow.model.<what>`` about the model ``name``, on which users hang automations."""
    resource = {"prefect.resource.id": f"layerflow.model.{name}", "prefect.resource.name": name}
    emit_event(event=f"layerflow.model.{what}", resource=resource, payload=details)
