"""The checks of ``extend.checks``: what you look for in the data, besides what layerflow does."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import get_args

import numpy as np

from layerflow import plugins
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ConfigError, DataError, printed
from layerflow.extensions import Data, Level
from layerflow.findings import Finding
from layerflow.outcomes import OwnFindings
from layerflow.packed import Images
from layerflow.records import DatasetRef

log = logging.getLogger(__name__)
#: Findings of one check, and letters of a sentence, that are kept.
_MOST, _LETTERS = 100, 1000


def look(names: tuple[str, ...], data: DatasetRef) -> OwnFindings:
    """What the checks find, in their order.

    Raises:
        ConfigError: If a check can't be imported, fails, or yields something else than pairs of a level and a sentence.
    """
    found = [finding for name in names for finding in _found_by(name, data)]
    for finding in found:
        log.log(logging.INFO if finding.level == "info" else logging.WARNING, "%s: %s", finding.check, finding.text)
    return OwnFindings(name=data.name, data_digest=data.digest, findings=tuple(found))


def require_no_stop(found: OwnFindings) -> None:
    """Raise what must end the run.

    Raises:
        DataError: With every finding whose level is ``stop``.
    """
    if stops := [f"{finding.check}: {finding.text}" for finding in found.findings if finding.level == "stop"]:
        raise DataError(f"The data of {found.name} must pass your checks. They do not: {'; '.join(stops)}.")


def _found_by(name: str, data: DatasetRef) -> Iterator[Finding]:
    check = plugins.load("checks", name)
    given = Data(data.name, data.digest, data.classes, data.image_shape, partial(_split, data))
    with plugins.calling("checks", name):
        pairs = list(check(given))
    for pair in pairs[:_MOST]:
        match pair:
            case (str(level), str(text)) if level in get_args(Level) and text.strip():
                yield Finding(check=name, level=level, text=printed(" ".join(text.split()), _LETTERS))
            case _:
                raise ConfigError(
                    f"extend.checks {name} must yield pairs of a level (info, warn, stop) and a sentence. Received: "
                    f"{printed(repr(pair))}"
                )


def _split(data: DatasetRef, split: str) -> tuple[Images, np.ndarray]:
    return images_and_labels(data, split)
