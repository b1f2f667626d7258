"""The flow `rollback`: an earlier version of a model goes into service again."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from layerflow.outcomes import RolledBack
from layerflow.settings.gate import SignConfig
from tasks import logs, rollback_model


@flow(
    name="rollback",
    flow_run_name="rollback-{name}",
    description="Verify an earlier version in a fresh process, and publish its bytes as the next version.",
    persist_result=False,
)
def rollback(
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)],
    to: Annotated[int, Field(ge=1)] | None = None,
    sign: SignConfig = SignConfig(),  # noqa: B008  (frozen)
) -> RolledBack:
    """Put an earlier version of a published model into service again.

    Args:
        name: The model, such as `mlp-digits`: what `registry.name` may be.
        to: The version to restore; default: the newest with another model than the one in service.
        sign: What signs the new version: what `registry.sign` is in the runs that publish.
    """
    logs.install()
    return rollback_model(name, to, sign)
