"""`subprocess` for Python programs that start in a tenth of a second, not in five: by a fork of a warm parent.

The parent has imported TensorFlow, Keras, Prefect and the other libraries, and nothing of the project. All else about
a process is its own and new: the project's modules, environment, folder, streams, exit status, and a process ID that
signals reach. Where Python is to run with ``-I -S``, as the verifying process does, so does the parent, which then has
imported TensorFlow alone. A test that needs new libraries too uses `subprocess`.
"""

import array
import contextlib
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired
from typing import Any

__all__ = ["DEVNULL", "PIPE", "PROGRAMS", "STDOUT", "CompletedProcess", "Popen", "TimeoutExpired", "run"]

PROGRAMS = Path(__file__).resolve().parent / "programs"
WARM_PARENT = PROGRAMS / "warm_parent.py"
_PR_SET_CHILD_SUBREAPER = 36  # of Linux


@functools.cache
def _warm_parent(*flags: str) -> socket.socket:
    """The socket to the parent of the forks, which starts at the first one and ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        command = [sys.executable, *flags, str(WARM_PARENT), str(theirs.fileno()), *libraries]
        subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd="/")
    return ours


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """A process below this one that loses its parent gets this one."""
    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        system.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen` of ``[sys.executable, "-m" | "-c" | file, …]``, or of a Python program by its path."""

    if sys.platform == "linux":

        def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, *rest: Any) -> None:
            """Where `subprocess` forks and executes; its signature is the same in Python 3.11 to 3.13."""
            pass_fds, cwd, env, _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *others = rest
            command = [os.fspath(each) for each in args]
            arguments = command[1:] if command[0] == sys.executable else command
            flags = ["-I", "-S"] if arguments[:2] == ["-I", "-S"] else []
            request = {
                "arguments": arguments[len(flags) :],
                "folder": os.path.abspath(cwd or "."),
                "environment": dict(os.environ if env is None else env),
                "descriptors": [0, 1, 2, *pass_fds],
                "new_session": others[-2],
            }
            sys.audit("subprocess.Popen", executable, args, cwd, env)  # as `subprocess` tells whoever listens
            text, parent = json.dumps(request).encode(), _warm_parent(*flags)
            ends = ((p2cread, 0), (c2pwrite, 1), (errwrite, 2))
            streams = array.array("i", [*(ours if end == -1 else end for end, ours in ends), *pass_fds])
            with _adopting():
                size = array.array("I", [len(text)]).tobytes()
                parent.sendmsg([size], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
                parent.sendall(text)
                self.pid = int(parent.recv(16))
            self._child_created = True
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def run(
    command: Sequence[Any],
    *,
    input: str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> CompletedProcess[Any]:
    """`subprocess.run` of such a program."""
    if input is not None:
        options["stdin"] = PIPE
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
