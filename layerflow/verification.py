"""Proving an exported model in a process that knows nothing of this code."""

import contextlib
import json
import subprocess
import sys
import sysconfig
import tempfile
import threading
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
    report = _ask({"saved_model": str(saved_model.absolute()), "digests": DIGESTS, **request}, fresh=True)
    if "refused" in report:
        raise VerificationError(f"The model in {saved_model} is refused: {report['refused']}.")
    return report


def score_both(challenger: Path, champion: Path, test_images: Path, test_labels: Path) -> dict[str, Any]:
    """Score two exported models on the same test examples, in the process that verified the challenger.

    Returns:
        The verifier's report: for each side ``accuracy``, ``lowest_recall``, ``lowest_class`` and latencies, and the
        numbers of examples that both, one or none of them got right; or ``not_comparable``, why the champion can't be
        scored.

    Raises:
        VerificationError: If the challenger itself fails.
    """
    request = {"saved_model": challenger, "champion": champion, "test_images": test_images, "test_labels": test_labels}
    report = _ask({name: str(path) for name, path in request.items()} | {"digests": DIGESTS}, fresh=False)
    if "refused" in report:
        raise VerificationError(f"The model in {challenger} is refused: {report['refused']}.")
    return report


class _Process:
    """A fresh interpreter that sees the libraries and nothing of the project.

    ``-I`` ignores the environment and the working folder, ``-S`` leaves ``.pth`` files unread, by which an editable
    installation would bring the project in. It ends by itself when its stdin is closed, and so with this process.
    """

    def __init__(self) -> None:
        libraries = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        self.has_answered = False
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (closed by end)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_VERIFIER), *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=tempfile.gettempdir(),
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.has_answered = True
        killer = threading.Timer(_TIMEOUT_SECONDS, self._process.kill)
        killer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._requests.write(json.dumps({**request, "must_not_import": _OURS}) + "\n")
                self._requests.flush()
            line = next((line for line in self._answers if line.startswith("{")), "")
        finally:
            late = not killer.is_alive()
            killer.cancel()
        if line:
            return json.loads(line)
        status = self._process.wait()
        if late:
            raise VerificationError(
                f"The model must load and answer within {_TIMEOUT_SECONDS} seconds. It did not; it is refused."
            )
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
        raise VerificationError(f"The verifying process ended with status {status}: {last}.")

    def end(self) -> None:
        """Close its stdin, and wait until it has gone."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._process.wait()
        self._answers.close()
        self._errors.close()


_process: _Process | None = None
_asking = threading.Lock()


def start_early() -> None:
    """Start a verifying process now: it imports TensorFlow while this one trains, and waits for its request."""
    with _asking:
        _ready(fresh=True)


def _ask(request: dict[str, Any], fresh: bool) -> dict[str, Any]:
    with _asking:
        return _ready(fresh).answer(request)


def _ready(fresh: bool) -> _Process:
    """The waiting process, or a new one; ``fresh``: one that has answered nothing yet."""
    global _process
    if _process and (not _process.is_alive or (fresh and _process.has_answered)):
        _process.end()
        _process = None
    _process = _process or _Process()
    return _process
