"""The flow `sweep`: many trainings with other settings, the best of which goes through `retrain`."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.sweeps.outcomes import SweepOutcome
from layerflow.sweeps.space import plan
from tasks import choose_winner, load_data, logs, validate_data
from tasks.caching import result_storage
from tasks.card_file import require_card
from tasks.gate_metric import require_metric
from tasks.live_version import data_in_service
from tasks.policy import forget_failure
from tasks.signing import require_signer
from tasks.trials.schedule import run_trials


@flow(
    name="sweep",
    flow_run_name="sweep-{config.model.name}-on-{config.data.title}",
    description="Try settings on the validation images, then retrain with the best: evaluated, verified, gated.",
    result_storage=result_storage(),
    on_failure=[forget_failure],
    persist_result=False,
)
def sweep(
    config: RetrainConfig = RetrainConfig(),  # noqa: B008  (frozen)
    space: dict[str, dict[str, list[Any]]] | None = None,
    trials: Annotated[int, Field(ge=1)] = 20,
    parallel: Annotated[int, Field(ge=1)] = 1,
    ray: str | None = None,
) -> SweepOutcome:
    """Sweep over `space`, such as {"training.batch_size": {"choice": [32, 64]}}; without one, over the network's own.

    Args:
        config: What all trials have in common, and how the best is published.
        space: Field by field: choice, uniform, log_uniform or int, with its values or bounds.
        trials: Trials in all; those of an earlier run of the same sweep count.
        parallel: Trials at a time.
        ray: Address of a Ray cluster that runs them (`auto`, `ray://host:10001`), or `local` to start one.
    """
    logs.install()
    require_card(config.registry)
    planned = plan(config, space, ray)
    require_signer(config.registry.sign)
    data = load_data(config.data, config.devices_for_model)
    require_metric(config.gate, data)
    config.export.abstain.require_enough(data.counts["validation"])
    validate_data(config.checks, data, data_in_service(config.registry_name, data))
    study = run_trials(config, planned, data, trials, parallel, ray)
    result = choose_winner(config, planned, study)
    return SweepOutcome(result=result, retrained=retrain(result.config))


if __name__ == "__main__":
    sweep()
