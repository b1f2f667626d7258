"""Step 5: how good it is, on images it never saw."""

from pathlib import Path

from layerflow.records import DatasetRef, Evaluation, TrainedRef
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.export import ExportConfig
from tasks.caching import step
from tasks.cards import card_shown


@step(
    "evaluate_model",
    run_name="evaluate-{trained.model}-on-{data.name}",
    on_result=card_shown("evaluation", "Scores on the test images: confusion matrix, classes, calibration, mistakes"),
    hash_all_fields_of=("devices",),
    hash_also=("data.slices_digest",),
)
def evaluate_model(
    config: ExportConfig, trained: TrainedRef, data: DatasetRef, devices: DevicesConfig, folder: Path
) -> Evaluation:
    """Choose temperature and threshold on the validation examples, and score every test example as the model ships."""
    from layerflow.cards.evaluation import write_card
    from layerflow.devices import set_up
    from layerflow.evaluation.evaluate import evaluate

    set_up(devices)
    evaluation = evaluate(trained, data, folder, config)
    write_card(evaluation, trained, data, folder)
    return evaluation
