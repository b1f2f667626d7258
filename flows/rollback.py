"""The flow `rollback`: an earlier version of a model goes into service again."""

from prefect import flow

from layerflow.records import RolledBack
from tasks import rollback_model


@flow(
    name="rollback",
    flow_run_name="rollback-{name}",
    description="Verify an earlier version in a fresh process, and publish its bytes as the next version.",
    persist_result=False,
)
def rollback(name: str, to: int | None = None) -> RolledBack:
    """Roll a published model back to version ``to``, or to the newest one with another model."""
    return rollback_model(name, to)
