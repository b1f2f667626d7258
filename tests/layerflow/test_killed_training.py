"""Training under SIGKILL, at random moments."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from drill import drill


def test_a_training_killed_five_times_ends_with_the_bits_of_one_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1_000_000)
    with capsys.disabled():
        print(f" seed {seed}")
        assert drill(5, seed) == 0
