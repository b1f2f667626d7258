"""Which model a version holds, whatever exported it."""

import hashlib
import json
from typing import Any

from layerflow.serving import Serving


def model_identity(receipt: dict[str, Any]) -> str:
    """SHA-256 of the network, its weights and its classes, by which the ledger knows a model.

    Temperature and threshold belong to it where they are not the defaults, since they change what is answered. Not the
    files, nor the code that exported it: a model that is made again, by a later layerflow too, is the same, so that a
    rolled-back one stays rolled back.
    """
    served = Serving.model_validate(receipt["evaluation"].get("serving", {}))
    other = served.model_dump(mode="json", exclude_defaults=True)
    return _digest([receipt["trained"]["digest"], *receipt["data"]["classes"], *([other] if other else [])])


def former_identity(receipt: dict[str, Any]) -> str:
    """What ledgers had in its place before: the code of the export was a part of it."""
    return _digest([receipt["trained"]["digest"], receipt["export"].get("code", ""), *receipt["data"]["classes"]])


def _digest(made: list[Any]) -> str:
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()
