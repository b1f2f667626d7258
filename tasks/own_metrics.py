"""Step 5, where `extend.metrics` asks for it: your figures of the model."""

from pathlib import Path

from layerflow.outcomes import OwnFigures
from layerflow.records import DatasetRef, Evaluation
from tasks.caching import step
from tasks.cards import card_shown


@step(
    "own_metrics",
    run_name="own-metrics-on-{data.name}",
    on_result=card_shown("own-metrics", "Your figures of the model on the test images"),
)
def own_metrics(
    metrics: tuple[str, ...], code: dict[str, str], evaluation: Evaluation, data: DatasetRef, folder: Path
) -> OwnFigures:
    """Your figures of the answers that the evaluation kept. ``code`` has the digest of each one's code."""
    from layerflow.cards.own import write_figures
    from layerflow.evaluation.own_metrics import score

    figures = score(metrics, evaluation, data)
    write_figures(figures, folder)
    return figures
