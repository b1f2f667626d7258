"""The training images in the order of each epoch, a window of them at a time on the device."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from layerflow.memory import give_back
from layerflow.packed import Images

#: Bytes of images in a window that is read from the disk: so many that going from one to the next costs nothing beside
#: the arithmetic, so few that a handful of them fits everywhere.
WINDOW_BYTES = 64 * 2**20
#: Rows that are read before their pages are given back: Linux maps 64 KiB around each, so that they are 16 MiB at most.
_ROWS = 256
#: How often resident images are held: as they came, and in the orders of this epoch and of the next.
_COPIES = 3


class Window(NamedTuple):
    """Consecutive batches of an epoch: ``images`` and ``labels`` of the steps from ``start`` until before ``stop``."""

    images: tf.Tensor
    labels: tf.Tensor
    start: int
    stop: int


class Windows:
    """The windows of all epochs; while one is in use, another thread makes the next.

    Resident images make one window, the whole epoch. Streamed ones stay in their file, and one window is held beside
    the one that is being made. The order is a permutation decided by ``(seed, epoch)`` alone, so that every step sees
    the same images either way.

    Args:
        images: ``(examples, …)``, ``uint8`` images or ``float32`` features; memory-mapped where streamed.
        labels: ``int32`` of shape ``(examples,)``.
        batch_size: Images of one step.
        seed: Decides the order.
        streamed: Whether the images are read from the disk, window by window.

    Attributes:
        steps: Steps of an epoch.
        window_steps: Steps of a window; the last one of an epoch may have fewer.
        rows: Images of a window, the same for all, so that what runs over them is compiled once: streamed, the last one
            ends in zeros that no step reads.
    """

    def __init__(
        self, images: Images | tf.Tensor, labels: np.ndarray | tf.Tensor, batch_size: int, seed: int, streamed: bool
    ) -> None:
        self.examples, self.steps = len(images), -(-len(images) // batch_size)
        batch_bytes = batch_size * int(np.prod(images.shape[1:]))
        window = max(1, WINDOW_BYTES // batch_bytes) if streamed else self.steps
        self.rows = min(window * batch_size, self.examples)
        self.window_steps, self._batch_size, self._seed, self._streamed = window, batch_size, seed, streamed
        self._images, self._labels = images, labels
        if not streamed:  # no tensor may ever hold the whole split otherwise
            whole = images if isinstance(images, tf.Tensor) else np.asarray(images)
            self._images, self._labels = tf.constant(whole), tf.constant(labels)
        give_back(images)
        self._order: tuple[int, np.ndarray] = -1, np.empty(0, np.int64)
        self._made: dict[tuple[int, int], Future[Window]] = {}
        self._other_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-window")

    def blank(self) -> Window:
        """A window of no steps, with the shapes of all others."""
        if not self._streamed:
            return Window(self._images, self._labels, 0, 0)
        shapes = [(self.rows, *each.shape[1:]) for each in (self._images, self._labels)]
        return Window(tf.zeros(shapes[0], self._images.dtype), tf.zeros(shapes[1], tf.int32), 0, 0)

    def at(self, epoch: int, step: int) -> Window:
        """The window of ``step`` in ``epoch``."""
        start = step // self.window_steps * self.window_steps
        stop = start + self.window_steps
        following = (epoch, stop) if stop < self.steps else (epoch + 1, 0)
        # Let go of what is over before there is a third.
        self._made = {key: made for key, made in self._made.items() if key in ((epoch, start), following)}
        window = self._make_soon(epoch, start).result()
        self._make_soon(*following)
        return window

    def order(self, epoch: int) -> np.ndarray:
        """The images' places in the epoch: ``int64`` of shape ``(examples,)``, each image once."""
        return np.random.Generator(np.random.Philox(key=[self._seed, epoch])).permutation(self.examples)

    def _make_soon(self, epoch: int, start: int) -> Future[Window]:
        if (epoch, start) not in self._made:
            self._made[epoch, start] = self._other_thread.submit(self._make, epoch, start)
        return self._made[epoch, start]

    def _make(self, epoch: int, start: int) -> Window:
        if epoch != self._order[0]:
            self._order = epoch, self.order(epoch)
        places = self._order[1][start * self._batch_size :][: self.rows]
        stop = min(start + self.window_steps, self.steps)
        if not self._streamed:
            return Window(tf.gather(self._images, places), tf.gather(self._labels, places), start, stop)
        return Window(_read(self._images, places, self.rows), _read(self._labels, places, self.rows), start, stop)


def resident_bytes(images: Images, labels: np.ndarray) -> int:
    """Bytes that a training takes which keeps its images on the device."""
    return _COPIES * (images.nbytes + labels.nbytes)


def _read(source: Images, places: np.ndarray, rows: int) -> tf.Tensor:
    """The rows at ``places`` of a file, and zeros after them up to ``rows``; read in the order of the file."""
    found = np.zeros((rows, *source.shape[1:]), source.dtype)
    sorted_places = np.argsort(places)
    for start in range(0, len(places), _ROWS):
        part = sorted_places[start : start + _ROWS]
        found[part] = source[places[part]]
        give_back(source)
    return tf.constant(found)
