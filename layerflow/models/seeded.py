"""Random numbers from a seed, whatever other threads draw."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

_one_at_a_time = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, this thread draws from ``seed`` on: the layers made there get the same first weights each time.

    ``keras.utils.set_random_seed`` alone isn't enough. Keras draws the seeds of initializers from Python's ``random``,
    which all threads share: one draw of a thread of Prefect's, to wait for a random time, changes all weights made
    after it. Here ``random`` answers this thread from a stream of its own, and other threads as before.
    """
    own, thread = random.Random(seed), threading.get_ident()
    with _one_at_a_time:
        shared = {name: each for name, each in vars(random).items() if isinstance(_owner(each), random.Random)}

        def answer(name: str) -> Callable[..., Any]:
            return lambda *args, **settings: (getattr(own, name) if threading.get_ident() == thread else shared[name])(
                *args, **settings
            )

        keras.utils.set_random_seed(seed)
        vars(random).update({name: answer(name) for name in shared})
        try:
            yield
        finally:
            vars(random).update(shared)


def _owner(function: Any) -> Any:
    return getattr(function, "__self__", None)
