"""An image on its way into a pack, and one that is in a pack."""

import hashlib
from typing import NamedTuple, Self

import numpy as np


class Content(NamedTuple):
    """An image, and what its bytes decide.

    Attributes:
        image: ``uint8`` of shape ``(height, width, channels)``, contiguous.
        digest: SHA-256 of its bytes.
        test_place: The first 8 bytes of the SHA-256 of its bytes and ``test``.
    """

    image: np.ndarray
    digest: bytes
    test_place: int

    @classmethod
    def of(cls, image: np.ndarray) -> Self:
        """The content of an image, ``uint8`` of shape ``(height, width, channels)``."""
        image = np.ascontiguousarray(image)
        digest = hashlib.sha256(image.data)
        own = digest.digest()
        digest.update(b"test")
        return cls(image, own, int.from_bytes(digest.digest()[:8], "big"))


class Row(NamedTuple):
    """An image in a pack.

    Attributes:
        pack: Number of the pack.
        row: Its place there.
        digest: SHA-256 of its bytes.
        test_place: As ``Content`` has it.
        source: What tells the file that it was made of, and how, from all others; empty if it was no file.
    """

    pack: int
    row: int
    digest: bytes
    test_place: int
    source: bytes = b""
