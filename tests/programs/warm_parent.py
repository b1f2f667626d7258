"""The parent of `tests.forked`: it imports the libraries and nothing of the project, and forks when it is asked.

Usage: ``warm_parent.py SOCKET LIBRARIES…``: a descriptor, and folders for ``sys.path``. A request is some descriptors
and a JSON object behind its size: ``arguments`` as behind ``python``, ``folder``, ``environment``, ``descriptors``, the
numbers that the child is to have them under, and ``new_session``. The answer is the child's process ID. The child has
no parent when it begins, so that it becomes a child of whoever asked.

TensorFlow may be forked after its import, but not once its runtime has started: nothing here makes a tensor.
"""

import array
import atexit
import contextlib
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any, NoReturn

if not sys.flags.safe_path:
    sys.path.pop(0)  # this folder
#: With ``-I -S``, as the verifying process runs, a child finds the libraries only where it is told to look for them.
BARE, PATH = bool(sys.flags.no_site), list(sys.path)
if BARE:
    sys.path += sys.argv[2:]
    sys.modules["keras"] = None  # type: ignore[assignment] # as the verifying process hides it

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # as layerflow/__init__.py has it
outputs = os.dup(1), os.dup(2)
for number in (1, 2):  # what the libraries say about themselves
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402, F401

if not BARE:
    import cyclopts  # noqa: F401
    import keras  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import optuna  # noqa: F401
    import prefect.artifacts
    import prefect.client.orchestration
    import prefect.context
    import prefect.logging.configuration
    import prefect.results
    import scipy.stats  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tensorflow_datasets as tfds  # noqa: F401

for number, saved in enumerate(outputs, 1):
    os.dup2(saved, number)
    os.close(saved)
sys.path = PATH
if BARE:
    del sys.modules["keras"]


def asked(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request and its descriptors; ends this process where nobody is left to ask."""
    size, descriptors = array.array("I", [0]), array.array("i")
    head, ancillary, *_ = requests.recvmsg(size.itemsize, socket.CMSG_SPACE(16 * descriptors.itemsize))
    if not head:
        os._exit(0)
    size = array.array("I", head)
    for *_, data in ancillary:
        descriptors.frombytes(data)
    text = b""
    while len(text) < size[0]:
        text += requests.recv(size[0] - len(text))
    return json.loads(text), list(descriptors)


def forked(requests: socket.socket) -> list[str]:
    """Serve requests; return in each child alone, with its arguments."""
    while True:
        request, descriptors = asked(requests)
        reader, writer = os.pipe()
        if not (between := os.fork()):
            if os.fork():
                os._exit(0)
            break
        for each in (writer, *descriptors):
            os.close(each)
        os.waitpid(between, 0)
        requests.sendall(os.read(reader, 16))
        os.close(reader)
    os.write(writer, str(os.getpid()).encode().ljust(16))
    if request["new_session"]:
        os.setsid()
    wanted = request["descriptors"]
    last = max(reader, writer, requests.detach(), *descriptors, *wanted)
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD, last + 1) for each in descriptors]  # out of each other's way
    for number, each in zip(wanted, moved, strict=True):
        os.dup2(each, number)
    for each in set(range(3, max(moved) + 1)) - set(wanted):
        with contextlib.suppress(OSError):
            os.close(each)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    return request["arguments"]


def set_up() -> None:
    """Do what Python and the libraries do by their environment when they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # or all children would draw the same numbers
    if BARE:
        return
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    prefect.context.refresh_global_settings_context()
    prefect.logging.configuration.setup_logging()


def run(arguments: list[str]) -> None:
    """Do what ``python`` does with these arguments."""
    program, *rest = arguments
    if program == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if program == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        code = compile(rest[0], "<string>", "exec")
    else:
        file = Path(program, "__main__.py") if Path(program).is_dir() else Path(program)
        if not BARE:
            sys.path.insert(0, str(file.resolve().parent))
        sys.argv = arguments
        main.__file__ = str(file)
        code = compile(file.read_text(), str(file), "exec")
    exec(code, main.__dict__)


def leave(error: BaseException | None) -> NoReturn:
    """End as Python ends, but for the modules: to take them down one by one takes longer than most programs."""
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  (waits for threads, as Python does)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120  # Python's own for this
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


gc.collect()
gc.freeze()  # what is here already is never looked at again, and so its pages stay shared
given = forked(socket.socket(fileno=int(sys.argv[1])))
failure: BaseException | None = None
try:
    set_up()
    run(given)
except BaseException as error:
    failure = error
leave(failure)
