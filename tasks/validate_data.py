"""Step 2: a look at the data, before an hour is spent on them."""

from pathlib import Path

from layerflow import store
from layerflow.findings import Profile
from layerflow.records import DataReport, DatasetRef
from layerflow.settings.checks import ChecksConfig
from tasks.caching import step
from tasks.cards import show_card


def _tell(report: DataReport) -> None:
    from layerflow.data.validation import require_no_stop

    card = store.path(report.card).read_text(encoding="utf-8")
    show_card(f"data-{report.name}", card, "The data: findings of the checks, and images of each class")
    require_no_stop(report)


@step("validate_data", run_name="validate-{data.name}", on_result=_tell, hash_all_fields_of=("data",))
def validate_data(config: ChecksConfig, data: DatasetRef, baseline: Profile | None, folder: Path) -> DataReport:
    """Look for leakage, duplicates, missing classes and drift since the model in service; end the run where it must."""
    from layerflow.cards.data import write_card
    from layerflow.data.validation import validate

    report = validate(config, data, baseline)
    write_card(report, data, folder)
    return report
