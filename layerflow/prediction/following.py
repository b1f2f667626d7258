"""The live version, kept in service: a newer one is loaded beside it, and takes its place once it can answer."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from layerflow.errors import printed

if TYPE_CHECKING:  # it imports TensorFlow
    from layerflow.prediction.served_model import ServedModel

log = logging.getLogger(__name__)

#: Seconds between two looks at the registry, and until a version that was refused is tried again.
_PAUSE, _RETRY = 5, 60


class Follower:
    """Holds the model that answers. A request takes it once, and keeps it to its end, whatever follows.

    Args:
        newest: The number of the live version.
        load: Loads a version.

    Raises:
        Exception: Whatever ``newest`` or ``load`` raises for the first version.
    """

    def __init__(self, newest: Callable[[], int], load: Callable[[int], "ServedModel"]) -> None:
        self._newest, self._load = newest, load
        self.model = load(newest())
        self.loading: int | None = None
        self.refused: dict[int, str] = {}
        self._tried = 0.0

    @property
    def states(self) -> dict[int, tuple[str, str]]:
        """The versions that are served, loaded or refused, in TensorFlow Serving's words, and why one is refused."""
        loading, refused = self.loading, self.refused
        told = {number: ("END", reason) for number, reason in refused.items()}
        return told | ({loading: ("LOADING", "")} if loading else {}) | {self.model.version: ("AVAILABLE", "")}

    def check(self) -> None:
        """Put the live version into service, if it is another one. If it can't be loaded, the old one stays."""
        number = self._newest()
        if number == self.model.version:
            self.refused = {}
            return
        if number in self.refused and time.monotonic() < self._tried + _RETRY:
            return
        self.loading = number
        try:
            self.model = self._load(number)
            self.refused = {}
            log.info("version %d answers now", number)
        except Exception as error:  # whatever is wrong with it, the old one must go on
            self.refused, self._tried = {number: printed(str(error), 500)}, time.monotonic()
            log.warning("version %d is refused, and version %d stays: %s", number, self.model.version, error)
        finally:
            self.loading = None

    def follow(self, stop: threading.Event) -> None:
        """Check again and again, until told to stop; what can't be read now may be readable later."""
        while not stop.wait(_PAUSE):
            try:
                self.check()
            except Exception as error:
                log.warning("the registry can't be read, and version %d stays: %s", self.model.version, error)
