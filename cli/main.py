"""The command `layerflow`: runs what was asked, and ends with a status and, where it failed, with one sentence."""

import os
import select
import shlex
import sys
from typing import Any

from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError
from pydantic import ValidationError

from cli.commands import app
from cli.models_commands import models
from cli.terminal import explain, interrupted, print_traceback
from layerflow.errors import config_sentence, mask

#: The number of the file that a command prints to.
_STDOUT = 1


def main() -> None:
    """Run the command and leave with 0, 2 for invalid input, 130 after Ctrl-C, or 1 for anything else."""
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    try:
        app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _leave(130, interrupted(arguments))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():  # not our error, and nothing left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
            return
        if "--debug" in sys.argv:
            print_traceback(error)
        _leave(*((2, _usage(error, arguments)) if isinstance(error, CycloptsError) else explain(error)))


def _is_output_closed() -> bool:
    """Whether the reader of our output has gone, as `head` does; another pipe may have broken."""
    output = select.poll()
    output.register(_STDOUT, 0)
    return bool(output.poll(0))


def _usage(error: CycloptsError, arguments: list[str]) -> str:
    """What is wrong with the words of the command, and the words that were meant where that is likely."""
    if isinstance(error.__cause__, ValidationError):
        return config_sentence(error.__cause__)
    word = arguments[0] if arguments else ""
    if isinstance(error, UnknownCommandError) and word in models:
        return f"layerflow has no command {word}. Use `layerflow models {shlex.join(arguments)}`."
    if (
        isinstance(error, UnusedCliTokensError)
        and (stray := error.unused_tokens)
        and word in ("retrain", "sweep", "data")
    ):
        return f"{word} takes flags only. Received: {' '.join(stray)}; use --data.name {stray[0]} to choose the data."
    return _one_line(error)


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())


def _leave(status: int, sentence: str) -> None:
    print(f"layerflow: {mask(sentence)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
