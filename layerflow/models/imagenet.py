"""Getting a published file of weights: from the mirror, or by Keras from the network."""

import contextlib
import hashlib
import io
import logging
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from layerflow.errors import MirrorError, UnreachableError
from layerflow.models.published import Published

log = logging.getLogger(__name__)


def place_of(file: Published, copy: Path | None) -> str:
    """Where a published file will be taken from, as text. It is not read.

    Args:
        file: The published file.
        copy: Its place in the mirror; nothing if there is no mirror.

    Raises:
        MirrorError: If the mirror lacks it.
        UnreachableError: If there is no mirror, Keras has not fetched it before, and the network can't be reached.
    """
    if copy:
        if not copy.is_file():
            raise MirrorError(
                f"The mirror must hold {copy}, which is not there; add it under that name, from {file.url}."
            )
        return f"{copy}, in the mirror"
    if found := _fetched(file):
        return f"{found}, which Keras fetched before"
    host = urlsplit(file.url).hostname
    try:
        # 5 seconds: a server that takes longer to answer would take hours for the file.
        socket.create_connection((host, 443), 5).close()
    except OSError as error:
        raise UnreachableError(
            f"The weights {file.name} must be downloaded, and {host} can't be reached ({error}); connect this machine, "
            f"or set data.mirror (or LAYERFLOW_MIRROR) to a folder that holds keras/{file.name}."
        ) from error
    return f"{file.name}, to be downloaded from {host}, which can be reached"


def fetch(file: Published, copy: Path | None) -> Path:
    """The published file on this machine, with the digest that Keras publishes. If it has none, a warning is logged.

    Args:
        file: The published file.
        copy: Its place in the mirror; nothing if there is no mirror.

    Raises:
        MirrorError: If the mirror lacks it or holds a damaged one.
        UnreachableError: If it must be downloaded and can't be, or arrives damaged.
    """
    where = place_of(file, copy)
    if file.digest is None:
        log.warning("Keras publishes no digest of %s, so that nothing tells whether it is the right file", file.name)
    if copy is None:
        return _fetched(file) or _download(file, where)
    if file.digest and (received := _digest(copy, file.digest)) != file.digest:
        raise MirrorError(
            f"{copy} in the mirror is damaged: expected {file.digest}, received {received}; copy it again."
        )
    return copy


def _download(file: Published, where: str) -> Path:
    import keras

    log.info("weights from %s", where)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Keras prints its progress there
            return Path(keras.utils.get_file(file.name, file.url, cache_subdir="models", file_hash=file.digest))
    except Exception as error:  # Keras raises plain exceptions
        said = " ".join(str(error).split())
        raise UnreachableError(
            f"The weights {file.name} must be downloaded whole from {urlsplit(file.url).hostname}; received: {said}"
        ) from error


def _fetched(file: Published) -> Path | None:
    """The file among those that Keras has fetched, with its digest."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    found = home / "models" / file.name
    is_right = found.is_file() and (file.digest is None or _digest(found, file.digest) == file.digest)
    return found if is_right else None


def _digest(file: Path, like: str) -> str:
    """The file's digest, of the kind of another: MD5 has 32 digits, SHA-256 has 64."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5" if len(like) == 32 else "sha256").hexdigest()
