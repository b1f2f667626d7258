"""Showing a step's card among the artifacts of the run, in the Prefect UI."""

import logging
import re
from collections.abc import Callable

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.runtime import flow_run

from layerflow import store
from layerflow.cards.markdown import as_code
from layerflow.config import RetrainConfig
from layerflow.records import Record

log = logging.getLogger("layerflow")


def card_shown(kind: str, description: str) -> Callable[[Record], None]:
    """What a step does then: show its card under the kind, model and data of the run."""

    def show(record: Record) -> None:
        config = settings_of_run()
        name = f"{kind}-{config.registry_name}" if config else kind
        show_card(name, store.path(record.card).read_text(encoding="utf-8"), description)

    return show


def show_card(
    key: str, card: str, description: str, config: RetrainConfig | None = None, with_rerun_command: bool = True
) -> None:
    """Show a card, Markdown, among the run's artifacts in the UI.

    Args:
        config: The settings that it is of; default: those of the flow run.
        with_rerun_command: Whether it is to end with the command that retrains with them.
    """
    if TaskRunContext.get() is None and FlowRunContext.get() is None:  # called without Prefect
        return
    config = config or settings_of_run()
    if with_rerun_command and config:
        card += f"\nTo reproduce: {as_code(f'layerflow retrain {config.as_flags}')}\n"
    try:
        create_markdown_artifact(key=key_of(key), markdown=card, description=description)
    except Exception as error:  # whatever it is: a decision that was carried out must not be retried for its picture
        log.warning("the card %s can't be shown: %s", key, error)


def key_of(text: str) -> str:
    """A text as the key of an artifact."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def settings_of_run() -> RetrainConfig | None:
    """The settings of the flow run, if it is one of `retrain` or `sweep`."""
    config = (flow_run.parameters or {}).get("config")
    return config if isinstance(config, RetrainConfig) else None
