"""Where the bucket of ``LAYERFLOW_REMOTE`` is, and how it is opened.

Credentials and endpoints are in the environment, under the names that the SDKs of the clouds use.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from layerflow.errors import ConfigError, mask, printed
from layerflow.remote.causes import cause_of

SCHEMES = ("s3", "gs", "az", "file")
#: Seconds for a connection, and for one request; a large file takes many requests.
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
#: Tries that obstore itself makes after the first of a request, at once: a single part that failed is sent again.
_TRIES_AT_ONCE = 1


def checked(address: str) -> str:
    """The address, which holds no secret.

    Raises:
        ConfigError: If it is no address of a bucket.
    """
    shown = printed(mask(address))
    try:
        parts = urlsplit(address)
        secret = parts.username is not None or parts.password is not None or parts.query or parts.fragment
    except ValueError:
        parts, secret = urlsplit(""), ""
    if secret:
        raise ConfigError(
            f"LAYERFLOW_REMOTE must be an address without credentials. Received: {shown}; set those in the environment."
        )
    place = parts.path if parts.scheme == "file" else parts.netloc
    if parts.scheme not in SCHEMES or not place.strip("/") or ".." in unquote(parts.path).split("/"):
        raise ConfigError(
            "LAYERFLOW_REMOTE must be s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or "
            f"file:///folder. Received: {shown}; correct it, or unset it to use the local store alone."
        )
    return address


def opened(address: str) -> Any:
    """The store of obstore that an address names.

    Raises:
        ConfigError: If the environment lacks what it needs.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    if address.startswith("file:"):
        try:
            Path(unquote(urlsplit(address).path)).mkdir(parents=True, exist_ok=True)
            return from_url(address)
        except OSError as error:
            raise ConfigError(
                f"LAYERFLOW_REMOTE {address} must be a folder that can be made and read; received: "
                f"{error.strerror or cause_of(error)}. Name another, or unset it to use the local store alone."
            ) from None
    names = [f"{cloud}_ENDPOINT{end}" for cloud in ("AWS", "AZURE") for end in ("", "_URL")]
    options: Any = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "allow_http": any(os.environ.get(name, "").startswith("http:") for name in names),
    }
    pauses: Any = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1)}
    retries: Any = {"max_retries": _TRIES_AT_ONCE, "backoff": pauses, "retry_timeout": timedelta(seconds=60)}
    try:
        return from_url(address, client_options=options, retry_config=retries)
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(
            f"LAYERFLOW_REMOTE {address} must be a bucket that the environment describes, and {cause_of(error)}; "
            "docs/operations.md lists the variables of each cloud."
        ) from None
