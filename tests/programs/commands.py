"""Run several command lines one after the other in this process: importing what one needs takes longer than most.

The command lines are a JSON list of lists of words on stdin; the answer on stdout is a JSON list of
``[status, stdout, stderr]``. A first word ``layerflow`` is the command line, ``python -m`` runs a module, ``python -c``
the program that follows.
"""

import contextlib
import io
import json
import runpy
import sys

from cli.main import main

answers = []
for program, *arguments in json.load(sys.stdin):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if program == "layerflow":
                sys.argv = [program, *arguments]
                main()
            elif program == "python" and arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__")
            elif program == "python" and arguments[0] == "-c":
                exec(arguments[1], {"__name__": "__main__"})
            else:
                raise SystemExit(f"{program} is no program that this one can run")
        except SystemExit as left:
            status = left.code
    answers.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
