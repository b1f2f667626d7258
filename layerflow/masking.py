"""Secrets in addresses, taken out of whatever is shown or kept."""

import re
from typing import Any, TypeVar

T = TypeVar("T")

#: From the colon on, for a text can hold a picture of a million letters; a `Path` leaves one slash of two.
_ADDRESS = re.compile(r""":/+[^\s"'<>`]*""")
#: Before the @: whatever no slash divides, and a password with slashes (those of S3 have some) but no port.
_USER = re.compile(r"^(:/+)(?:[^/?#]*|[^/@:]+:(?!\d+(?:[/?#]|$)).*)@")
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
