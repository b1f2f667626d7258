"""Proving an exported model in a process that knows nothing of this code."""

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.errors import NotAnExportError, VerificationError
from layerflow.manifest import DIGESTS
from layerflow.records import Check, DatasetRef, Evaluation, ExportRef, Verification

_VERIFIER = Path(__file__).with_name("verifier.py")
#: What a model's own code lives in: the verifying process must be unable to import it.
_OURS = ("layers", "layerflow")
#: A model that has not loaded and answered in this many seconds can't be put into service by a nightly run.
_TIMEOUT_SECONDS = 1800
#: A verifying process that was started early.
_waiting: subprocess.Popen[str] | None = None


def verify(export: ExportRef, evaluation: Evaluation, data: DatasetRef) -> Verification:
    """Reload the export in a fresh process, check it, and score the whole test split with what ships.

    Raises:
        VerificationError: With the first check that failed, and what was expected and received.
    """
    tests = store.path(data.folder)
    report = inspect(
        store.path(export.saved_model),
        export_digest=export.digest,
        test_images=str(tests / "test_images.npy"),
        test_labels=str(tests / "test_labels.npy"),
        predictions=str(store.path(evaluation.predictions)),
    )
    checks = tuple(Check(name=name, detail=detail) for name, detail in report.pop("checks").items())
    return Verification(export_digest=export.digest, checks=checks, **report)


def inspect(saved_model: Path, **request: str) -> dict[str, Any]:
    """Verify any model that layerflow exported, from its own files, and return the verifier's report.

    Args:
        saved_model: The SavedModel's folder.
        **request: What else the verifier may check against: ``export_digest``, ``test_images``, ``test_labels``,
            ``predictions``.

    Raises:
        NotAnExportError: If the folder is no model exported by layerflow.
        VerificationError: With the first check that failed.
    """
    for needed in ("saved_model.pb", DIGESTS):
        if not (saved_model / needed).is_file():
            raise NotAnExportError(
                f"{saved_model} must be the folder of a SavedModel that layerflow exported. It has no {needed}; "
                "name a folder such as store/models/mlp-digits/1."
            )
    report = _run_isolated({"saved_model": str(saved_model.absolute()), "digests": DIGESTS, **request})
    if "refused" in report:
        raise VerificationError(f"The model in {saved_model} is refused: {report['refused']}.")
    return report


def start_early() -> None:
    """Start the verifying process now: it imports TensorFlow while this one trains, and waits for its request."""
    global _waiting
    if _waiting is None or _waiting.poll() is not None:
        _waiting = _start()


def _start() -> subprocess.Popen[str]:
    """A fresh interpreter that sees the libraries and nothing of the project.

    ``-I`` ignores the environment and the working folder, ``-S`` leaves ``.pth`` files unread, by which an editable
    installation would bring the project in.
    """
    libraries = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    command = [sys.executable, "-I", "-S", str(_VERIFIER), *libraries]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=tempfile.gettempdir())


def _run_isolated(request: dict[str, Any]) -> dict[str, Any]:
    """Have the waiting process, or a new one, answer the request; each answers one and ends."""
    global _waiting
    start_early()
    process, _waiting = _waiting, None
    assert process is not None
    try:
        out, err = process.communicate(json.dumps({**request, "must_not_import": _OURS}), timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise VerificationError(
            f"The model must load and answer within {_TIMEOUT_SECONDS} seconds. It did not; it is refused."
        ) from error
    lines = out.splitlines()
    if process.returncode or not lines:
        last = (err.strip().splitlines() or ["no message"])[-1]
        raise VerificationError(f"The verifying process ended with status {process.returncode}: {last}.")
    return json.loads(lines[-1])
