"""What is logged: in the UI with the task run, and on the console what its reader can use."""

import logging
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler

from layerflow.errors import LayerflowError, mask


class _ToRunLogger(logging.Handler):
    """Hands what ``layerflow`` logs to the logger of the task run, so that it stands in the UI."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger: Any = get_run_logger()
        except MissingContextError:
            logger = logging.getLogger("prefect")
        logger.log(record.levelno, mask(record.getMessage()), exc_info=record.exc_info)


def _masked(record: logging.LogRecord) -> bool:
    """Take the secrets of addresses out of what is logged."""
    if record.exc_info:
        record.exc_text = mask(logging.Formatter().formatException(record.exc_info))
    record.msg, record.args = mask(record.getMessage()), None
    return True


class OnConsole(logging.Filter):
    """What a terminal or a worker's log shows of a run; the server is sent all of it, and before.

    Attributes:
        everything: Whether it shows every line and every traceback.
        lowest: Level of the least important line that it shows.
        links: Whether it shows links to the server; false where the server ends with the run.
        bars: Whether a terminal gets a bar of a training's epochs.
    """

    everything, lowest, links, bars = False, logging.NOTSET, True, True

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback of an error that says in one sentence what to do, and Prefect's word for every hook."""
        if self.everything:
            return True
        if record.exc_info and isinstance(record.exc_info[1], LayerflowError | OSError):
            record.exc_info = record.exc_text = None
        if record.levelno < self.lowest or (record.levelno <= logging.INFO and record.funcName == "call_hooks"):
            return False
        return self.links or not record.getMessage().startswith("View at ")


#: The one filter of the console; the command line sets how much it shows.
console = OnConsole()


def install() -> None:
    """Hand what ``layerflow`` logs to the task run's logger, and set up the console. A second call changes nothing."""
    ours = logging.getLogger("layerflow")
    if any(isinstance(each, _ToRunLogger) for each in ours.handlers):
        return
    ours.setLevel(logging.INFO)
    ours.addHandler(_ToRunLogger())
    ours.propagate = False
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(console)
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_masked)
