"""Step 8: the decision. Never cached: what is in service is looked at every time."""

from typing import cast

from prefect import Task
from prefect.runtime import flow_run
from prefect.states import State

from layerflow.config import RetrainConfig
from layerflow.outcomes import FormatsProof, OwnFigures, OwnFindings, Promotion
from layerflow.records import DataReport, DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef, Verification
from tasks import remote
from tasks.approval import end_closed_questions
from tasks.cards import show_card
from tasks.events import decided, emit_decision
from tasks.policy import as_task
from tasks.verify_export import verifier


def _promote_model(
    config: RetrainConfig,
    data: DatasetRef,
    checked: DataReport,
    model: ModelRef,
    trained: TrainedRef,
    evaluation: Evaluation,
    export: ExportRef,
    verification: Verification,
    formats: FormatsProof | None = None,
    own_checks: OwnFindings | None = None,
    own_metrics: OwnFigures | None = None,
) -> State[Promotion]:
    """Publish the model as the next version if it may be, keep the champion otherwise; leave a receipt either way."""
    from layerflow import artifacts
    from layerflow.registry.promotion import promote
    from layerflow.registry.receipt import Challenger

    own = own_checks, own_metrics
    challenger = Challenger(data, checked, model, trained, evaluation, export, verification, formats, *own)
    records = [record for record in challenger if record]
    for record in remote.here(records):
        artifacts.check_record(record)

    def bring() -> None:
        for record in remote.bring(records):
            artifacts.check_record(record)

    def show(card: str) -> None:
        show_card(f"decision-{config.registry_name}", card, "Start here: published or not, why, and what is next")

    end_closed_questions(config.registry_name)
    promotion = promote(config, challenger, flow_run.name or "", show, verifier, flow_run.id or "", bring)
    end_closed_questions(config.registry_name)
    emit_decision(promotion)
    return decided(promotion, promotion)


promote_model = cast(  # Prefect unwraps a state that a task returns; its types do not say so
    "Task[..., Promotion]",
    as_task(_promote_model, name="promote_model", run_name="promote-{model.name}-on-{data.name}"),
)
