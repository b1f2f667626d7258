"""Checks of constructor arguments, with one sentence for each that is wrong."""

from typing import Any


def positive_integer(name: str, value: Any) -> int:
    """``value``, if it is a whole number from 1.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return value


def pair(name: str, value: Any) -> tuple[int, int]:
    """``value`` as (vertical, horizontal), if it is a positive integer or two of them.

    Raises:
        ValueError: Otherwise.
    """
    both = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2 or any(isinstance(each, bool) or not isinstance(each, int) or each < 1 for each in both):
        raise ValueError(f"`{name}` must be a positive integer or a pair of them. Received: {name}={value!r}")
    return both


def share(name: str, value: Any) -> float:
    """``value``, if it is a number of at least 0 and below 1.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be a number of at least 0 and below 1. Received: {name}={value!r}")
    return value


def positive_number(name: str, value: Any) -> float:
    """``value``, if it is a finite number above 0.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")
    return value


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """``value``, if it is one of the words in ``known``.

    Raises:
        ValueError: Otherwise.
    """
    if value not in known:
        choice = " or ".join(f'"{word}"' for word in known)
        raise ValueError(f"`{name}` must be {choice}. Received: {name}={value!r}")
    return value


def fixed(layer: str, shape: tuple[int | None, ...], rank: int, *axes: int) -> None:
    """Refuse an input shape of another rank, or without a fixed size on one of the axes.

    Raises:
        ValueError: If so.
    """
    if len(shape) != rank or any(shape[axis] is None for axis in axes):
        form = {3: "(batch, tokens, features)", 4: "(batch, height, width, channels)"}[rank]
        sizes = " with fixed sizes" if axes else ""
        raise ValueError(f"`{layer}` needs an input of shape {form}{sizes}. Received: input_shape={tuple(shape)}")


def features(layer: str, shape: tuple[int | None, ...]) -> int:
    """The size of the last axis of ``(batch, ..., features)``.

    Raises:
        ValueError: If it is not fixed, or there is no other axis.
    """
    size = shape[-1]
    if len(shape) < 2 or size is None:
        raise ValueError(
            f"`{layer}` needs an input of shape (batch, ..., features) with a fixed number of features. "
            f"Received: input_shape={tuple(shape)}"
        )
    return size
