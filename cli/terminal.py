"""What the terminal shows while a command works, and the one sentence with which a command fails."""

import contextlib
import errno
import logging
import os
import re
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layerflow.errors import FolderChangedError, LayerflowError, UnreachableError, mask


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How much a command prints while it works."""

    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Print only warnings and the result.")] = False
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], help="Print every log line of Prefect, and tracebacks.")
    ] = False


def set_up_console(output: Output, embedded: bool) -> None:
    """Show that much of what Prefect and the steps log.

    Args:
        output: How much.
        embedded: Whether the server ends with the command: then a link to it is dead when it is clicked.
    """
    from tasks.logs import console, install

    install()
    console.everything, console.links, console.bars = output.verbose, not embedded, not output.quiet
    console.lowest = logging.WARNING if output.quiet else logging.NOTSET


_CONTINUES = "interrupted; the same command continues where this run stopped."
#: What Ctrl-C has done to each command; to any other it has done nothing worth saying.
_INTERRUPTED = {
    "retrain": _CONTINUES,
    "sweep": _CONTINUES,
    "data": "interrupted; the same command reads only what it has not read yet.",
    "serve": "stopped; the schedules stay active, and `layerflow serve` runs what is due when it starts again.",
    "deploy": "interrupted; re-run the command to finish.",
    "gc": "interrupted; what went is gone as a whole, and the same command goes on.",
    "rollback": "interrupted; `layerflow models` shows which version is live.",
}


def interrupted(arguments: list[str]) -> str:
    """What Ctrl-C means for the command of these arguments."""
    return _INTERRUPTED.get(next((each for each in arguments if not each.startswith("-")), ""), "interrupted.")


def explain(error: BaseException) -> tuple[int, str]:
    """Exit status and sentence for an error that a command ends with, whoever raised it."""
    if isinstance(error, LayerflowError | UnreachableError | FolderChangedError):
        return error.exit_status, str(error)
    chain = [*_chain(error)]
    if full := next((each for each in chain if _is_full(each)), None):
        return 1, f"The disk is full{_where(full)}: {_said(full)}. Free some of it, and re-run the command."
    if refused := next((each for each in chain if type(each).__name__ == "PrefectHTTPStatusError"), None):
        return 1, (
            f"The Prefect server refused the request: {_said(refused)}. Look into its log, make sure that it has "
            "the version of Prefect that is installed here, and re-run the command."
        )
    if lost := next((each for each in chain if _is_connection(each)), None):
        return 1, f"The connection to a server failed: {_said(lost)}. Make sure it runs, and re-run the command."
    if isinstance(error, OSError):
        return 1, f"I/O error: {_said(error)}. Fix the cause, and re-run the command."
    place = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" at {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
    return 1, f"Unexpected error{at}: {_said(error)}. Re-run with --debug for the traceback."


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    """The error, those of which it is a group, and their causes; what was handled when it was raised says nothing."""
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield error
    for each in (*getattr(error, "exceptions", ()), error.__cause__):
        if isinstance(each, BaseException):
            yield from _chain(each, seen)


#: As SQLite, HDF5 and TensorFlow say it, which raise errors of their own.
_FULL = re.compile(r"no space left on device|disk quota exceeded|database or disk is full|errno = 28\b", re.IGNORECASE)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return _FULL.search(str(error)) is not None


def _where(error: BaseException) -> str:
    """Whether the disk lacks inodes rather than space, where the error names a place."""
    place = Path(str(getattr(error, "filename", None) or "."))
    there = next((each for each in (place, *place.parents) if each.exists()), None)
    if there is None or not isinstance(getattr(error, "filename", None), str | bytes | Path):
        return ""
    disk = os.statvfs(there)
    return " (it has no inodes left for new files)" if disk.f_files and not disk.f_favail else ""


def _is_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | socket.gaierror):
        return True
    # By name: to import the clients takes a second.
    return type(error).__module__.partition(".")[0] in ("httpx", "httpcore", "websockets")


#: Most characters of another library's words in a sentence.
_MOST = 200


def _said(error: BaseException) -> str:
    """The error's class and the first line of its words; an OSError's words say enough without a class."""
    first = next(iter(str(error).strip().splitlines()), "").strip().rstrip(".")
    first = first if len(first) <= _MOST else f"{first[:_MOST]}…"
    if isinstance(error, OSError) and first:
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def print_traceback(error: BaseException) -> None:
    """For ``--debug``."""
    sys.stderr.write(mask("".join(traceback.format_exception(error))))


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep back what TensorFlow's C++ code prints while it is imported, whatever its log level; shown if it fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def import_tensorflow_alone() -> None:
    """Import TensorFlow where Keras isn't needed. TensorFlow imports it if it finds it, for nearly as long again."""
    if not {"tensorflow", "keras"}.isdisjoint(sys.modules):
        return
    sys.modules["keras"] = None  # type: ignore[assignment] # hides it
    try:
        import tensorflow  # noqa: F401
    finally:
        del sys.modules["keras"]
