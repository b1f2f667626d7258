"""Work on many items in threads, with the results in order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")
#: Threads that work, and parts that each of them has ahead of the use of their results.
_THREADS, _AHEAD = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 2


def in_threads(work: Callable[[S], T], items: Iterable[S], size: int) -> Iterator[tuple[list[S], list[T]]]:
    """Work on the items in parts of ``size``, and return each part with its results, in order.

    A thread takes a part at a time, because handing over single small files costs more than reading them. Decoding,
    resizing and hashing let the other threads run meanwhile.

    Example:
        >>> list(in_threads(abs, [-1, 2, -3], size=2))
        [([-1, 2], [1, 2]), ([-3], [3])]
    """

    def work_through(part: list[S]) -> tuple[list[S], list[T]]:
        return part, [work(item) for item in part]

    rest = iter(items)
    parts = iter(lambda: list(itertools.islice(rest, size)), [])
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        ahead = deque(threads.submit(work_through, part) for part in itertools.islice(parts, _AHEAD * _THREADS))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(threads.submit(work_through, part) for part in itertools.islice(parts, 1))
