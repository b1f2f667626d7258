"""From which probability on an answer is accepted, so that few accepted answers are wrong."""

import math

import numpy as np

#: Thresholds are multiples of this: fine enough for any network, and short enough to read. Of finitely many
#: thresholds, the guarantee needs no continuity.
_STEPS = 1_000_000


def choose_threshold(confidence: np.ndarray, wrong: np.ndarray, most_wrong: int) -> float:
    """The lowest threshold, in millionths, at which at most ``most_wrong`` validation images are accepted and wrong.

    An answer is accepted if its probability is at least the threshold, compared in ``float32``. The share that is
    accepted and wrong can only fall as the threshold rises. So with ``most_wrong`` as
    ``AbstainConfig.most_wrong`` gives it, this is conformal risk control: an image drawn like the validation images is
    accepted and wrong with a probability of at most ``error``. The result is above 1, where nothing is accepted, if
    more than ``most_wrong`` answers are wrong with a probability of 1.

    Args:
        confidence: The largest probability of each image, ``float32`` of shape ``(examples,)``.
        wrong: Whether the answer is wrong, ``bool`` of shape ``(examples,)``.
        most_wrong: At least 0.

    References:
        Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal risk control (2022), theorem 1.
        Vovk, Gammerman and Shafer, Algorithmic learning in a random world (2005).
    """
    mistakes = np.sort(confidence[wrong])
    if len(mistakes) <= most_wrong:
        return 0.0
    highest = mistakes[-1 - most_wrong]  # which must not be accepted
    step = math.floor(float(highest) * _STEPS)
    while accepts(highest, step / _STEPS):  # once or twice: float32 has its own idea of a millionth
        step += 1
    return step / _STEPS


def accepts(confidence: np.ndarray, threshold: float) -> np.ndarray:
    """Which answers are accepted, ``bool``: compared in ``float32``, as the exported graph does."""
    return np.asarray(confidence >= np.float32(threshold))
