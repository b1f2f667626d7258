"""Hold a lock of the store for a minute."""

import time

from layerflow import store

with store.locked("x"):
    print("held", flush=True)
    time.sleep(60)
