"""Requests to this process, and the limits under which it answers them."""

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any

from .refusal import RefusedError, first_line

#: Largest file that this process may write; its own log is one.
FILE_BYTES = 16 * 2**20


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the requests on stdin, one JSON object a line, on the descriptor that the first argument names."""
    set_limits()
    with os.fdopen(int(sys.argv[1]), "w") as answers, os.fdopen(os.dup(0)) as requests:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for line in requests:  # until whoever asks has gone
            request = json.loads(line)
            try:
                report = answer(request)
            except RefusedError as refusal:
                report = {"refused": str(refusal)}
            except Exception as error:
                traceback.print_exc()
                report = {"refused": f"verification fails: {type(error).__name__}: {first_line(error)}"}
            answers.write(json.dumps({**report, "nonce": request["nonce"]}) + "\n")
            answers.flush()


def set_limits() -> None:
    """Let no model fill the disk or take more memory than the machine has.

    The limit is on data, not on addresses: TensorFlow reserves many times what it uses, and images are mapped.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0))
    for which, wanted in limits:
        hard = resource.getrlimit(which)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (most, most))
