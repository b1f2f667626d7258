"""The process in which a model is verified: what it can import, how it is asked, and when it ends."""

import contextlib
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from layerflow.errors import ProcessKilledError, VerificationError

log = logging.getLogger(__name__)

_VERIFIER = Path(__file__).with_name("verifier")
#: What the verifying process must be unable to import: a model's own code, and what a model is trained with.
_TRAINING = ("layers", "layerflow", "keras")
#: The packages that a process with another runtime than TensorFlow gets to see.
RUNTIMES = {"litert": "ai_edge_litert", "onnx": "onnxruntime"}
#: Seconds in which a model must be proved: to import TensorFlow and load on a busy machine; for each image; and for
#: each image and MiB of the model, which is what a slow processor takes. Beside the test images there are those of the
#: other checks.
_SECONDS, _IMAGE_SECONDS, _MIB_SECONDS, _OTHER_IMAGES = 600, 0.02, 0.005, 10_000
#: Seconds to decode a file, of which one in a few hundred may have a hundred megapixels.
_FILE_SECONDS = 0.5
#: All that the verifying process gets of the environment: where libraries and devices are. No token, no password.
_ENVIRONMENT = (
    *("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "OMP_NUM_THREADS", "XLA_FLAGS"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "TF_XLA_FLAGS"),
)
#: Its environment where ours says nothing. It shares the GPU with this process: it must not take all of the memory.
_DEFAULTS = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
#: Lines of the libraries about themselves, and how much of what else is printed goes to the log.
_NOISE, _LINES, _LETTERS = re.compile(r"[IWE]\d{4} |WARNING|INFO: Created TensorFlow Lite"), 20, 200


class _Process:
    """A fresh interpreter that sees the libraries and nothing of the project.

    ``-I`` ignores the environment and the working folder, ``-S`` leaves ``.pth`` files unread, by which an editable
    installation would bring the project in. It ends by itself when its stdin is closed, and so with this process.

    Args:
        runtime: ``tensorflow``; or one of ``RUNTIMES``, and then the process sees that package and NumPy alone.
    """

    def __init__(self, runtime: str = "tensorflow") -> None:
        self._must_not_import = _TRAINING if runtime == "tensorflow" else (*_TRAINING, "tensorflow")
        self._links = tempfile.TemporaryDirectory()
        libraries = library_folders()
        if runtime != "tensorflow":
            _link(("numpy", RUNTIMES[runtime]), Path(self._links.name), libraries)
            libraries = [self._links.name]
        self.has_answered = False
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        answers, writes = os.pipe()
        self._answers = os.fdopen(answers)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_VERIFIER), str(writes), runtime, *libraries],
                stdin=subprocess.PIPE,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=tempfile.gettempdir(),
                env=libraries_environment(),
                pass_fds=[writes],
            )
        finally:
            os.close(writes)
        assert self._process.stdin
        self._requests = self._process.stdin

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer, which comes on a pipe of its own and carries the request's nonce."""
        self.has_answered = True
        nonce, seconds = secrets.token_hex(16), _timeout(request)
        before = os.fstat(self._printed.fileno()).st_size
        killer = threading.Timer(seconds, self._process.kill)
        killer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                asked = {
                    "seed": secrets.randbelow(2**32),
                    **request,
                    "must_not_import": self._must_not_import,
                    "nonce": nonce,
                }
                self._requests.write(json.dumps(asked) + "\n")
                self._requests.flush()
            line = self._answers.readline()
        finally:
            late = not killer.is_alive()
            killer.cancel()
        printed = self._lines(before)
        for each in printed[:_LINES]:
            log.info("the verifying process printed: %s", each[:_LETTERS])
        if line:
            with contextlib.suppress(ValueError, AttributeError):  # not JSON, no object: nothing of the verifier's
                answer = json.loads(line)
                if answer.pop("nonce", None) == nonce:
                    return answer
            self._process.kill()
            raise VerificationError(
                "The verifying process must answer with the nonce of its request. Something else wrote into its "
                "answers, which only the model can have done; it is refused."
            )
        status = self._process.wait()
        if late:
            raise VerificationError(
                f"The model must load and answer within {seconds:,.0f} seconds. It did not; it is refused."
            )
        last = (self._lines(0) or ["no message"])[-1][:_LETTERS]
        if status == -signal.SIGKILL:
            raise ProcessKilledError(
                f"The verifying process must not be killed, as for want of memory. It was: {last}."
            )
        raise VerificationError(f"The verifying process ended with status {status}: {last}.")

    def _lines(self, start: int) -> list[str]:
        """What was printed from byte ``start`` on, without what the libraries say about themselves."""
        # Read without moving the position, at which the other process writes.
        content = os.pread(self._printed.fileno(), 2**20, start).decode(errors="replace")
        lines = (line.strip() for line in content.splitlines())
        return [line for line in lines if line and not _NOISE.match(line)]

    def end(self) -> None:
        """Kill it: it has nothing to finish, TensorFlow takes a second to end by itself, and a model may hang."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # of a request that nobody has read
            self._requests.close()
        self._answers.close()
        self._printed.close()
        self._links.cleanup()


def library_folders() -> list[str]:
    """Where the libraries are installed."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _link(packages: Iterable[str], folder: Path, libraries: Iterable[str]) -> None:
    """Make links to packages, and to the shared libraries that wheels put beside them as ``<package>.libs``."""
    for name in packages:
        for place in (Path(library, each) for library in libraries for each in (name, f"{name}.libs")):
            if place.is_dir() and not (folder / place.name).exists():
                (folder / place.name).symlink_to(place.resolve())


def libraries_environment() -> dict[str, str]:
    """The environment of a process that gets no token and no password."""
    return _DEFAULTS | {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _timeout(request: dict[str, Any]) -> float:
    """Seconds that proving a model may take, by its bytes and the images that it has to answer."""
    images = _OTHER_IMAGES
    if "test_labels" in request:
        images += Path(request["test_labels"]).stat().st_size // 4  # int32
    decoding = _FILE_SECONDS * len(request.get("test_files", ()))
    models = [Path(request[name]) for name in ("saved_model", "champion") if name in request]
    size = sum(file.stat().st_size for model in models for file in model.rglob("*") if file.is_file())
    return _SECONDS + decoding + images * (_IMAGE_SECONDS * len(models) + _MIB_SECONDS * size / 2**20)


class Verifier:
    """The verifying process of a run: started when it is first asked, or earlier; it ends with this process.

    Args:
        runtime: As ``_Process`` takes it.
    """

    def __init__(self, runtime: str = "tensorflow") -> None:
        self._runtime = runtime
        self._process: _Process | None = None
        self._asking = threading.Lock()

    def start(self) -> None:
        """Start the process now: it imports TensorFlow while this one trains, and waits for its request."""
        with self._asking:
            self._ready(fresh=True)

    def ask(self, request: dict[str, Any], fresh: bool) -> dict[str, Any]:
        """The process's answer; ``fresh``: of a process that has answered nothing yet."""
        with self._asking:
            return self._ready(fresh).answer(request)

    def end(self) -> None:
        """End the process, where one waits."""
        if self._process:
            self._process.end()
        self._process = None

    def _ready(self, fresh: bool) -> _Process:
        if self._process and (not self._process.is_alive or (fresh and self._process.has_answered)):
            self.end()
        self._process = self._process or _Process(self._runtime)
        return self._process


@contextlib.contextmanager
def or_new(verifier: Verifier | None) -> Iterator[Verifier]:
    """The verifier, or one that ends with its use."""
    if verifier:
        yield verifier
        return
    own = Verifier()
    try:
        yield own
    finally:
        own.end()
