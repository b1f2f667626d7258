"""`layerflow retrain` with two workers where Ray is not installed."""

import sys

from cli.main import main

sys.modules["ray"] = None  # what the import system takes for a module that is not there
sys.argv = ["layerflow", "retrain", "--training.workers", "2"]

main()
