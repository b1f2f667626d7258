"""What must hold for every answer of a model, whatever runs it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .images import Images
from .refusal import require

#: Room for what float32 rounding does when other kernels multiply in another order (seen: 1e-6).
TOLERANCE = 1e-4
#: Room for it where both sides are of one call: two kernels of one graph may round a softmax differently. A threshold
#: may be 0.9999, so more would leave nothing to check.
AT_THRESHOLD = 1e-6
#: Largest batch that is tried; also the batch in which the test split is scored. Of large images it is fewer: those in
#: this many bytes, for a network's own arrays are a hundred times as large.
LARGE, LARGE_BYTES = 1000, 8 * 2**20


class Answering(ABC):
    """A model that can be asked.

    Attributes:
        threshold: The probability from which on an answer is accepted, where there is one.
        is_exact: Whether probabilities are of float32. Those of integers of 8 bits are rounded one by one, to 1/256.
    """

    threshold: float | None
    is_exact = True

    @abstractmethod
    def answer(self, images: np.ndarray, served: bool) -> np.ndarray:
        """Probabilities ``(images, classes)``, with what must hold for any answer; ``served``: as Serving would."""

    @abstractmethod
    def asking(self, image: np.ndarray) -> Callable[[], object]:
        """A function that asks for the answer to one image, as the latency is measured."""

    def check_answers(self, answers: dict[str, np.ndarray]) -> None:
        """What must hold for any answer."""
        probabilities, class_id = answers["probabilities"], answers["class_id"]
        require(bool(np.isfinite(probabilities).all()), "a probability is not a finite number")
        require(bool((probabilities >= 0).all() and (probabilities <= 1 + TOLERANCE).all()), "a probability is not one")
        sums = np.abs(probabilities.sum(axis=-1) - 1)
        require(not self.is_exact or bool(sums.max() < TOLERANCE), "probabilities do not sum to 1")
        known = bool(((class_id >= 0) & (class_id < probabilities.shape[1])).all())
        require(known, "class_id is the number of no class")
        chosen = np.take_along_axis(probabilities, class_id[:, None], axis=-1)[:, 0]
        # Two classes may be as probable as each other in float32, and not have been as logits.
        most = bool((chosen >= probabilities.max(axis=-1) - TOLERANCE).all())
        require(most, "class_id is not the most probable class")
        if self.threshold is not None:
            self.check_accepted(probabilities.max(axis=-1), answers["accepted"])

    def check_accepted(self, confidence: np.ndarray, accepted: np.ndarray) -> None:
        """What is accepted must be what the contract's threshold says of the answer's own probabilities."""
        assert self.threshold is not None
        clear = np.abs(confidence.astype(np.float64) - self.threshold) > AT_THRESHOLD
        wanted = confidence >= np.float32(self.threshold)
        same = np.array_equal(accepted[clear], wanted[clear])
        require(same, f"accepted is not what its probabilities and the threshold {self.threshold} give")

    def answer_all(
        self, images: Images, chance: np.random.Generator, ask: Callable[[np.ndarray, bool], np.ndarray] | None = None
    ) -> np.ndarray:
        """The answers to a whole split, in batches of random sizes, at random places, in a random order.

        Args:
            ask: What gives a row of figures for each image of a batch; default: ``answer``.
        """
        most, cuts = large(images), [0]
        while cuts[-1] < len(images):
            cuts.append(min(len(images), cuts[-1] + int(chance.integers(-(-most // 2), most, endpoint=True))))
        answers: np.ndarray | None = None
        for index in chance.permutation(len(cuts) - 1):
            rows = chance.permutation(np.arange(cuts[index], cuts[index + 1]))
            part = (ask or self.answer)(images[rows], bool(chance.integers(2)))
            if answers is None:
                answers = np.empty((len(images), *part.shape[1:]), part.dtype)
            answers[rows] = part
        assert answers is not None
        return answers


def threshold_in(contract: dict[str, Any]) -> float | None:
    """The contract's threshold, a number; nothing where it has none."""
    threshold = contract.get("threshold")
    if threshold is None:
        return None
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    require(is_number and math.isfinite(threshold), f"the contract's threshold must be a number, received {threshold}")
    return float(threshold)


def large(images: np.ndarray | Images) -> int:
    return max(1, min(LARGE, LARGE_BYTES // images[:1].nbytes))
