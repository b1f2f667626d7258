"""The same seed gives the same first weights, whatever other threads of the process draw."""

import random
import threading
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from layerflow.errors import ConfigError
from layerflow.models.seeded import seeded
from layers import Dropout


@pytest.fixture
def drawing() -> Iterator[list[float]]:
    """A thread that draws from Python's `random` all the time, as those of Prefect do now and then."""
    drawn, ended = [], threading.Event()

    def draw() -> None:
        while not ended.wait(1e-5):
            drawn.append(random.random())

    thread = threading.Thread(target=draw)
    thread.start()
    yield drawn
    ended.set()
    thread.join()


def first_weights() -> list[np.ndarray]:
    network = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(4) for _ in range(20)), Dropout(0.5)])
    return network.get_weights()


def test_another_thread_that_draws_changes_no_weight(drawing: list[float]) -> None:
    with seeded(7):
        expected = first_weights()
    before = len(drawn := drawing)
    for _ in range(3):
        with seeded(7):
            weights = first_weights()
        assert all((a == b).all() for a, b in zip(weights, expected, strict=True))
    assert len(set(drawn[before:])) > 3, "the other thread went on, with numbers of its own"


def by_keras() -> tuple[list[np.ndarray], float]:
    keras.utils.set_random_seed(7)
    return first_weights(), random.random()


def test_the_numbers_are_those_of_keras_own_seed() -> None:
    (_, before), (expected, number) = by_keras(), by_keras()
    while number != before:  # a thread of Prefect's has drawn in between
        before, (expected, number) = number, by_keras()
    with seeded(7):
        assert all((a == b).all() for a, b in zip(first_weights(), expected, strict=True))
        assert random.random() == number


def test_random_is_pythons_again_after_an_error() -> None:
    before = dict(vars(random))
    with pytest.raises(ConfigError), seeded(7):
        raise ConfigError("too large")
    assert vars(random) == before


def test_two_threads_that_build_at_a_time_each_get_their_own() -> None:
    made = dict[int, list[np.ndarray]]()

    inside = threading.Semaphore(0)

    def make(seed: int) -> None:
        inside.release()
        with seeded(seed):
            made[seed] = first_weights()

    threads = [threading.Thread(target=make, args=(seed,)) for seed in (1, 2)]
    with seeded(0):  # both wait here, whichever begins first
        for thread in threads:
            thread.start()
            inside.acquire()
    for thread in threads:
        thread.join()
    for seed, weights in made.items():
        with seeded(seed):
            assert all((a == b).all() for a, b in zip(first_weights(), weights, strict=True))
