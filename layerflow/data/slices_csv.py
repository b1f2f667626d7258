"""The CSV file that gives the images of a folder their slices: for each a camera, a site, a night.

It is a user's file, and any bytes can be in it: what is wrong is said in one sentence.
"""

import csv
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from layerflow.data.image_folder_layout import ImageFile
from layerflow.data.slice_files import Row, require_values
from layerflow.errors import DatasetError, heals, printed
from layerflow.settings.data import MOST_SLICE_COLUMNS

#: Largest file that is read: a line of 100 bytes for each of two million images.
_MOST_BYTES = 2**28
_FILE = "file"
#: What says that there is no such file. Any other error of the system may heal.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


class _Table(NamedTuple):
    """The columns, and their values by the path of the image."""

    columns: Row
    rows: dict[str, Row]


def sliced(files: list[ImageFile], file: Path) -> tuple[Row, list[ImageFile]]:
    """The columns of the CSV ``file``, and the images, each with its value of each column.

    An image that it does not list has empty values.

    Raises:
        DatasetError: If it is no CSV file of the images' slices, or lists none of these images.
    """
    file = file.expanduser().absolute()
    columns, rows = _read(file)
    if not rows:
        raise _refused(file, "has no line below its header")
    if not any(each.path in rows for each in files):
        raise DatasetError(
            f"The column `{_FILE}` of data.slices must name images below data.path, such as {printed(files[0].path)}. "
            f"None of the {len(rows):,} names in {printed(str(file))} is one, such as {printed(next(iter(rows)))}; "
            "change them."
        )
    none = ("",) * len(columns)
    found = [each._replace(slices=rows.get(each.path, none)) for each in files]
    for number, column in enumerate(columns):
        values = {each.slices[number] for each in found}
        require_values(column, values, len(values))
    return columns, found


def _read(file: Path) -> _Table:
    lines = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        if wrong := _wrong_header(header):
            raise _refused(file, wrong)
        return _Table(tuple(name for name in header if name != _FILE), dict(_rows(file, header, lines)))
    except csv.Error as error:
        raise _refused(file, f"has a line {lines.line_num:,} that is not CSV ({error})") from error


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        if heals(error) and error.errno not in _NO_FILE:
            raise
        raise _refused(file, f"can't be read ({error.strerror})") from error
    if len(content) > _MOST_BYTES:
        raise _refused(file, f"is larger than {_MOST_BYTES // 2**20} MiB")
    if b"\0" in content:
        raise _refused(file, "has null characters, as UTF-16 has")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(file, "is not UTF-8") from error


def _wrong_header(header: list[str]) -> str | None:
    if header.count(_FILE) != 1:
        return f"has the columns {printed(', '.join(header)) or 'of an empty line'}"
    if len(header) == 1:
        return "has no other column"
    if len(header) - 1 > MOST_SLICE_COLUMNS:
        return f"has {len(header) - 1:,} others, where {MOST_SLICE_COLUMNS} are allowed"
    if odd := [name for name in header if not name or not name.isprintable() or len(name) > 100]:
        return f"has a column named {printed(repr(odd[0]))}"
    twice = [name for name in header if header.count(name) > 1]
    return f"has the column {twice[0]} twice" if twice else None


def _rows(file: Path, header: list[str], lines: Any) -> Iterator[tuple[str, Row]]:
    """The path and the values of each line, each path once."""
    at = header.index(_FILE)
    seen: dict[str, Row] = {}
    shared: dict[Row, Row] = {}  # one object for each, however many images have it
    for line in lines:
        if not line:
            continue
        if len(line) != len(header):
            cells = f"{len(line):,} cells in line {lines.line_num:,}"
            raise _refused(file, f"has {cells}, where the header has {len(header)}")
        path = line.pop(at).removeprefix("./")
        row = tuple(cell.strip() for cell in line)
        row = shared.setdefault(row, row)
        if seen.setdefault(path, row) != row:
            raise _refused(file, f"gives {printed(path)} different values")
        yield path, row


def _refused(file: Path, what: str) -> DatasetError:
    return DatasetError(
        f"data.slices must be a CSV file in UTF-8 with a header: a column `{_FILE}`, and others such as camera. "
        f"{printed(str(file))} {what}; correct it."
    )
