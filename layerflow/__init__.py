"""The work itself, free of Prefect: data, models, training, evaluation, export, verification, registry."""

import gc
import os

# TensorFlow reads this once, at its import: informational lines of its C++ code stay out of people's logs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Python's collector of garbage runs after 700 new objects that stay, and the libraries make two million when they are
# imported. A longer wait takes a quarter off that time.
if 0 < gc.get_threshold()[0] < 10_000:
    gc.set_threshold(10_000)
