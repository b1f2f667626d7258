"""Setting up the GPUs, before anything touches them."""

import tensorflow as tf

from layerflow.errors import DeviceError


def enable_memory_growth() -> int:
    """Let every GPU's memory grow as it is needed, and return the number of GPUs.

    TensorFlow takes nearly all memory of a GPU otherwise, and the verifier's process would find none left. Every
    step that touches TensorFlow calls this first; calling it again changes nothing.

    Raises:
        DeviceError: If TensorFlow already runs on a GPU whose memory does not grow.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if tf.config.experimental.get_memory_growth(gpu):
            continue
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise DeviceError(
                f"Memory growth must be set on {gpu.name} before TensorFlow uses it, and something used it already; "
                "call enable_memory_growth() first in the process, or set TF_FORCE_GPU_ALLOW_GROWTH=true."
            ) from error
    return len(gpus)
