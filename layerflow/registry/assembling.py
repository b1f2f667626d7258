"""Putting a model together with what is kept beside it, for a version or a candidate."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.checksums import DIGESTS, listed, sha256, write_digests
from layerflow.errors import DamagedError
from layerflow.registry.layout import BESIDE, FORMATS, PROVENANCE, RECEIPT, RUN, SBOM, SIGNATURE
from layerflow.registry.provenance import statement
from layerflow.registry.receipt_formats import formats_of
from layerflow.registry.sbom import bill_of_materials
from layerflow.registry.signing import sign
from layerflow.settings.gate import SignConfig


def put_together(
    staging: Path,
    source: Path,
    receipt: dict[str, Any],
    beside: dict[str, bytes | None],
    signer: SignConfig = SignConfig(),  # noqa: B008  (frozen)
) -> str:
    """Copy the model in ``source`` to ``staging``, with its receipt and what is ``beside`` it, and flush it to disk.

    Its provenance, its bill of materials, and the signature that the ``signer`` makes are added.

    Returns:
        The SHA-256 of its list of digests.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
        ConfigError: If the signer can't be used.
        RegistryError: If it does not sign.
    """
    shutil.copytree(source, staging)
    for each in (*BESIDE, RUN, SIGNATURE):
        (staging / each).unlink(missing_ok=True)
    shutil.rmtree(staging / FORMATS, ignore_errors=True)
    exported = write_digests(staging)
    if exported != receipt["export"]["files"]:
        raise DamagedError(f"The copy of {source} is not what was exported; it was not published.")
    _add_formats(staging, source, receipt)
    sbom = _sbom(source, receipt)
    added = {RECEIPT: json.dumps(receipt, indent=2).encode(), SBOM: sbom, **beside}
    files = {name: digest for name, digest in exported.items() if name != DIGESTS}
    files |= {f"{FORMATS}/{name}": digest for name, digest in formats_of(receipt).published.items()}
    files |= {file: hashlib.sha256(content).hexdigest() for file, content in added.items() if content is not None}
    added[PROVENANCE] = statement(receipt, files, sbom)
    for file, content in added.items():
        if content is not None:
            (staging / file).write_bytes(content)
    sums = write_digests(staging)[DIGESTS]
    sign(staging, SIGNATURE, signer)
    store.sync(staging)
    return sums


def _sbom(source: Path, receipt: dict[str, Any]) -> bytes | None:
    """The packages of this environment; of a version or candidate in ``source``, those of the one that made it, which
    an earlier layerflow did not list.

    Raises:
        DamagedError: If they are not as the list of digests in ``source`` says.
    """
    if not (source / RECEIPT).exists():
        return bill_of_materials(receipt["created"])
    if not (source / SBOM).exists():
        return None
    content = (source / SBOM).read_bytes()
    try:
        is_listed = listed(source).get(SBOM) == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError):
        is_listed = False
    if not is_listed:
        raise DamagedError(f"{SBOM} in {source} is not what was published; it was not published again.")
    return content


def _add_formats(staging: Path, source: Path, receipt: dict[str, Any]) -> None:
    """Copy the files of other formats that the receipt tells of: from the version or candidate in ``source``, or from
    the step that proved them."""
    kept = source / FORMATS
    told = formats_of(receipt)
    for name, digest in told.published.items():
        origin = kept if kept.is_dir() else store.path(f"{told.folder}/formats")
        (staging / FORMATS).mkdir(exist_ok=True)
        shutil.copyfile(origin / name, staging / FORMATS / name)
        if sha256(staging / FORMATS / name) != digest:
            raise DamagedError(f"The copy of {origin / name} is not what was proved; it was not published.")
