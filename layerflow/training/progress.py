"""How far a training is, and which of its epochs is the best."""

import math
from dataclasses import dataclass, field

import numpy as np

from layerflow.records import Epoch
from layerflow.settings.training import TrainingConfig, is_maximized


@dataclass
class Progress:
    """What changes when an epoch ends."""

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)
    #: Seconds that the epoch after these took so far, in processes that are gone.
    seconds: float = 0.0

    def is_over(self, config: TrainingConfig, before: int = 0) -> bool:
        """Whether there was the last epoch, or none was better for ``patience`` epochs, of those after ``before``."""
        done = len(self.history)
        return done >= config.epochs or done - max(self.best_epoch, before) >= config.patience

    def is_better(self, epoch: Epoch, monitor: str) -> bool:
        if not self.best_epoch:
            return True
        new, best = getattr(epoch, monitor), getattr(self.history[self.best_epoch - 1], monitor)
        if not math.isfinite(best):  # NaN compares with nothing
            return math.isfinite(new)
        return new > best if is_maximized(monitor) else new < best
