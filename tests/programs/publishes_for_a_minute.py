"""Hold the registry's lock in the middle of publishing."""

import time

from layerflow import store
from layerflow.registry import layout

with store.locked("models-mlp-digits"):
    (layout.home("mlp-digits") / ".staging-1").mkdir(parents=True)
    print("publishing", flush=True)
    time.sleep(60)
