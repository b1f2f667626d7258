"""The verifier with its list of operations taken out, so that a hostile graph runs: what is left to hold it?

Usage: as ``layerflow/export/verifier``.
"""

import os
import sys
from pathlib import Path

sys.path += sys.argv[2:]
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "layerflow" / "export"))
from verifier import answer, model

sys.path.pop(0)
os.dup2(int(sys.argv[1]), 100)  # where the graph of the test looks for it: a descriptor's number is no secret
sys.argv[1] = "100"
model.check_graph = lambda folder: "not checked"
answer.check_isolation = lambda request: "not checked"
answer.main()
