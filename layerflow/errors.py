"""Secrets in addresses, taken out of whatever is shown or kept."""

import difflib
import errno
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

T = TypeVar("T")
#: From the colon on, for a text can hold a picture of a million letters; a `Path` leaves one slash of two.
_ADDRESS = re.compile(r""":/+[^\s"'<>`]*""")
#: Up to the last @: a password with whatever in it (those of S3 have slashes), but no port; or what no slash divides.
_USER = re.compile(r"^(:/+)(?:[^/@:]+:(?!\d+(?:[/?#]|$)).*|[^/?#]*)@")
_QUERY = re.compile(r"\?.*|#.*=.*")


def mask(content: T) -> T:
    """The same content with ``***`` for the user, the password and the query of every address in it.

    Args:
        content: A text, or lists and dicts of texts such as JSON has. What is no text stays as it is.

    Example:
        >>> mask("no answer from https://operator:secret@host/api?token=abc")
        'no answer from https://***@host/api?***'
    """
    masked: Any = content
    if isinstance(content, str):
        masked = _ADDRESS.sub(lambda found: _QUERY.sub("?***", _USER.sub(r"\1***@", found[0])), content)
    elif isinstance(content, dict):
        masked = {name: mask(value) for name, value in content.items()}
    elif isinstance(content, list | tuple):
        masked = type(content)(mask(value) for value in content)
    return masked


class _MaskedError(Exception):
    """Says no secret that stands in an address of its sentence."""

    def __str__(self) -> str:
        return mask(super().__str__())


class LayerflowError(_MaskedError):
    """An error with a name and a sentence. It does not heal by itself and is never retried."""

    exit_status = 1


class UserError(LayerflowError):
    """What was asked for can't be done as asked; the sentence says what can."""

    exit_status = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of bounds."""


class DatasetError(UserError):
    """The dataset is unknown, or is no set of labelled images of one shape."""


class DataError(UserError):
    """The data were checked, and something was found with which nothing must be trained."""


class MirrorError(UserError):
    """The mirror lacks a file or holds a damaged one."""


class StoreError(UserError):
    """The store can't be written."""


class ClusterError(UserError):
    """The Ray cluster is too small for what is asked, or one of its nodes can't take part."""


class WorkersLostError(LayerflowError):
    """The workers of a training died or lost each other again and again."""


class NotAnExportError(UserError):
    """The folder is no model exported by layerflow."""


class RegistryError(UserError):
    """There is no such model or version, or none to go back to."""


class DamagedError(LayerflowError):
    """An artifact's bytes are not the bytes that were stored; it was set aside."""


class NonFiniteLossError(LayerflowError):
    """The training loss became infinite or not a number."""


class OutOfMemoryError(LayerflowError):
    """The device has too little memory for the batch."""


class DeviceError(LayerflowError):
    """A device can't be set up as it must be, because TensorFlow is already running on it."""


class VerificationError(LayerflowError):
    """The exported model failed a check in the fresh process: it must not be served."""


class ProcessKilledError(LayerflowError):
    """A process that does a part of a step was killed, or found no memory or no room; trying again can help."""


class TrialError(LayerflowError):
    """A trial of a sweep, or all of them, did not get to an end."""


class SweepError(LayerflowError):
    """A sweep can't go on for a reason that has nothing to do with its trials' settings; once that is fixed, it can."""


class ServerError(LayerflowError):
    """The Prefect server does not answer."""


class UnreachableError(_MaskedError, OSError):
    """The network can't be reached now. Heals by itself, so it is retried."""

    exit_status = 1


class FolderChangedError(_MaskedError, OSError):
    """A folder of images was written to while it was read. Heals by itself, so it is retried."""

    exit_status = 1


#: A full disk, a full quota, a read-only or forbidden place: trying again changes nothing.
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


def heals(error: BaseException) -> bool:
    """Whether trying again can help: the network, a lock, storage that stumbled."""
    if isinstance(error, LayerflowError):
        return isinstance(error, ProcessKilledError)
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    # By name: asking for the class would import TensorFlow into processes that never needed it.
    return type(error).__name__ == "UnavailableError" and type(error).__module__.startswith("tensorflow")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` with the nearest known words, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


#: Characters of what a user gave that a sentence repeats, and settings that it names.
_MOST_SHOWN, _MOST_SETTINGS = 200, 5


def shown(value: object) -> str:
    """What a user gave, as a sentence repeats it: as Python writes it, printable, cut to 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or a list of lists of lists …
        text = f"a very long {type(value).__name__}"
    return printed(text)


def printed(text: str, most: int = _MOST_SHOWN) -> str:
    """A name or another's words, as a sentence repeats them: one printable line, cut to ``most`` characters."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def config_sentence(error: ValidationError) -> str:
    """Say a pydantic error in one line: each field, what was expected, what came."""
    items, parts = error.errors(), []
    for item in items[:_MOST_SETTINGS]:
        field = printed(".".join(str(part) for part in item["loc"]))
        expected = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            expected = "no such setting exists"
        expected = printed(f"{expected[0].lower()}{expected[1:]}", 2 * _MOST_SHOWN)  # our words, with some of theirs
        received = f". Received: {shown(item['input'])}" if field else ""  # of several groups, all that was given
        parts.append(f"{field or 'config'}: {expected}{received}")
    if len(items) > _MOST_SETTINGS:
        parts.append(f"and {len(items) - _MOST_SETTINGS:,} more settings")
    return "; ".join(parts)
