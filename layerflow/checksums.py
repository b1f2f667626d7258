"""The list of SHA-256 digests that a model carries: what its bytes must be, wherever it is copied to."""

import hashlib
from pathlib import Path

#: Where TF Serving looks for nothing but warm-up requests, and what it copies along with a model.
EXTRA = "assets.extra"
#: In the form that ``sha256sum --check`` reads, from the model's folder.
DIGESTS = f"{EXTRA}/SHA256SUMS"


def write_digests(saved_model: Path) -> dict[str, str]:
    """Write the SHA-256 of every file of a SavedModel into it, and return them with that of the list itself."""
    (saved_model / DIGESTS).unlink(missing_ok=True)
    files = digests(saved_model)
    (saved_model / DIGESTS).write_text(listing(files))
    return {**files, DIGESTS: sha256(saved_model / DIGESTS)}


def listing(files: dict[str, str]) -> str:
    """The text of the list, of files in order of path."""
    return "".join(f"{digest}  {name}\n" for name, digest in files.items())


def listed(saved_model: Path) -> dict[str, str]:
    """The digests by file that the list of a SavedModel has.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no such list.
    """
    lines = (saved_model / DIGESTS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def first_difference(one: dict[str, str], other: dict[str, str]) -> str | None:
    """The first file that only one of two lists has, or of which they have other digests."""
    return next((name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)), None)


def damage(saved_model: Path) -> str | None:
    """What is not as its list of digests says, or nothing if every byte is."""
    try:
        expected = listed(saved_model)
    except (OSError, ValueError):
        return f"{DIGESTS} can't be read"
    present = digests(saved_model)
    present.pop(DIGESTS, None)
    if (name := first_difference(expected, present)) is None:
        return None
    if name not in present:
        return f"{name} is missing"
    return f"{name} was changed" if name in expected else f"{name} does not belong to the model"


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below ``folder``, by POSIX path relative to it, in order of path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}
