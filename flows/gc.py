"""The flow `gc`: the store loses what no published model needs any more."""

from prefect import flow

from layerflow.collection.outcomes import Collected
from layerflow.settings.gc import GcConfig
from tasks import collect_garbage, logs


@flow(
    name="gc",
    flow_run_name="gc",
    description="Remove from the store what no model needs, no process uses, and nobody used for long.",
    persist_result=False,
)
def gc(config: GcConfig = GcConfig()) -> Collected:  # noqa: B008  (frozen)
    """Collect garbage, while other runs go on. What they use stays."""
    logs.install()
    return collect_garbage(config)


if __name__ == "__main__":
    gc()
