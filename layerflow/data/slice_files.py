"""The slices of the test images on disk, written while the images are read."""

import json
import logging
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from layerflow.errors import DatasetError, printed

log = logging.getLogger(__name__)
#: Values of a column: a slice of less than a thousandth of the images says little, and each is a line of the receipt.
MOST_VALUES = 1_000
#: Characters of a value: it stands in tables and sentences.
_MOST_CHARACTERS = 200

Row = tuple[str, ...]


class SliceFiles:
    """Writes ``test_slices.npy`` and ``test_slices.json``, which ``layerflow.data.slices`` reads.

    Args:
        columns: What the slices are of, such as ``("camera", "site")``. Without columns, nothing is written.

    Example:
        >>> files = SliceFiles(("camera", "site"))
        >>> files.add(("left", "Oslo"))
        >>> files.write(folder)
    """

    def __init__(self, columns: Row) -> None:
        self._columns = columns
        self._values: list[set[str]] = [set() for _ in columns]
        self._numbers: dict[Row, int] = {}
        self._rows = array("q")

    def add(self, row: Row) -> None:
        """Append a test image: its value of each column, empty where it has none.

        Raises:
            DatasetError: If a value can't be shown, or a column has too many of them.
        """
        if row not in self._numbers:
            for column, values, value in zip(self._columns, self._values, row, strict=True):
                values.add(value)
                require_values(column, [value], len(values))
            self._numbers[row] = len(self._numbers)
        self._rows.append(self._numbers[row])

    def write(self, folder: Path) -> None:
        """Write the files, if there are columns, and log how many images have no value.

        Raises:
            DatasetError: If no image has a value.
        """
        if not self._columns:
            return
        if not any(any(row) for row in self._numbers):
            raise DatasetError(
                f"data.slices must give test images a {self._columns[0]}. None of the {len(self._rows):,} test images "
                "has a value; name test images in it, or leave it out."
            )
        slices = [
            (column, value)
            for column, values in zip(self._columns, self._values, strict=True)
            for value in sorted(values)
        ]
        number = {each: place for place, each in enumerate(slices)}
        kinds = [[number[each] for each in zip(self._columns, row, strict=True)] for row in self._numbers]
        rows = np.array(kinds, np.int32)[np.frombuffer(self._rows, np.int64)]
        np.save(folder / "test_slices.npy", rows, allow_pickle=False)
        (folder / "test_slices.json").write_text(json.dumps(slices), encoding="utf-8")
        for column in self._columns:
            if (column, "") in number:
                missing = int((rows == number[column, ""]).sum())
                log.info("%s of %s test images have no %s", f"{missing:,}", f"{len(rows):,}", column)


def require_values(column: str, values: Iterable[str], count: int) -> None:
    """Refuse values that can't be slices.

    Args:
        values: Those that were not looked at yet.
        count: How many the column has.

    Raises:
        DatasetError: If there are more than ``MOST_VALUES``, or one is long or can't be printed.
    """
    if count > MOST_VALUES:
        raise DatasetError(
            f"A column of data.slices must have at most {MOST_VALUES:,} values. {printed(column)} has more; leave it "
            "out, or put its values into groups."
        )
    for value in values:
        if len(value) > _MOST_CHARACTERS or not value.isprintable():
            raise DatasetError(
                f"A value of data.slices must be printable text of at most {_MOST_CHARACTERS} characters. "
                f"{printed(column)} has {printed(value, 50)}; change it."
            )
