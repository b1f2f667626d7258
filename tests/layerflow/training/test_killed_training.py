"""Training under SIGKILL, at random moments."""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import pytest
from drill import drill

from tests import forked


@pytest.mark.drill
@pytest.mark.process
def test_a_training_killed_twice_ends_with_the_bits_of_one_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own, since they are killed."""
    monkeypatch.setattr("drill.subprocess", forked)
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # pytest shows it where the test fails
    assert drill(2, seed) == 0
