"""Step 2, where `extend.checks` asks for it: your checks of the data."""

from pathlib import Path

from layerflow import store
from layerflow.outcomes import OwnFindings
from layerflow.records import DatasetRef
from tasks.caching import step
from tasks.cards import show_card


def _tell(found: OwnFindings) -> None:
    from layerflow.data.own_checks import require_no_stop

    card = store.path(found.card).read_text(encoding="utf-8")
    show_card(f"own-checks-{found.name}", card, "What your checks found in the data")
    require_no_stop(found)


@step("own_checks", run_name="own-checks-of-{data.name}", on_result=_tell)
def own_checks(checks: tuple[str, ...], code: dict[str, str], data: DatasetRef, folder: Path) -> OwnFindings:
    """Let your checks look at the data; end the run where one says stop. ``code`` has the digest of each one's code."""
    from layerflow.cards.own import write_findings
    from layerflow.data.own_checks import look

    found = look(checks, data)
    write_findings(found, checks, folder)
    return found
