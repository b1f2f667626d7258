"""The list of SHA-256 digests that a model carries: what its bytes must be, wherever it is copied to."""

from pathlib import Path

from layerflow import store

#: Where TF Serving looks for nothing but warm-up requests, and what it copies along with a model.
EXTRA = "assets.extra"
#: In the form that ``sha256sum --check`` reads, from the model's folder.
DIGESTS = f"{EXTRA}/SHA256SUMS"


def write_digests(saved_model: Path) -> dict[str, str]:
    """Write the SHA-256 of every file of a SavedModel into it, and return them with that of the list itself."""
    (saved_model / DIGESTS).unlink(missing_ok=True)
    files = store.digests(saved_model)
    (saved_model / DIGESTS).write_text("".join(f"{digest}  {name}\n" for name, digest in files.items()))
    return {**files, DIGESTS: store.sha256(saved_model / DIGESTS)}


def damage(saved_model: Path) -> str | None:
    """What is not as its list of digests says, or nothing if every byte is."""
    try:
        lines = (saved_model / DIGESTS).read_text().splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return f"{DIGESTS} can't be read"
    present = store.digests(saved_model)
    present.pop(DIGESTS)
    for name in sorted(listed.keys() | present.keys()):
        if name not in present:
            return f"{name} is missing"
        if name not in listed:
            return f"{name} does not belong to the model"
        if listed[name] != present[name]:
            return f"{name} was changed"
    return None
