"""The work itself, free of Prefect: data, models, training, evaluation, export, verification, registry."""

import os

# TensorFlow reads this once, at its import: informational lines of its C++ code stay out of people's logs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
