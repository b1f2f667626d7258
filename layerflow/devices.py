"""Setting up the machine's devices, before anything touches them."""

import logging
import os
from typing import Any

import tensorflow as tf

from layerflow.errors import DeviceError
from layerflow.settings.devices import DevicesConfig

log = logging.getLogger(__name__)


def set_up(config: DevicesConfig) -> None:
    """Prepare GPUs and threads as ``config`` says; every step that touches TensorFlow calls this first.

    Raises:
        DeviceError: If TensorFlow already runs on a GPU that is not set up so.
    """
    if config.memory_limit_mb is None:
        enable_memory_growth()
    else:
        _limit_memory(config.memory_limit_mb)
    if config.threads and tf.config.threading.get_intra_op_parallelism_threads() != config.threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(config.threads)
        except RuntimeError:  # decided by whoever used TensorFlow first in this process
            log.warning(
                "devices.threads %d can't be set, because TensorFlow already runs in this process with %d, which "
                "changes the last bits of the model; start a new process",
                *(config.threads, threads_in_use()),
            )
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def enable_memory_growth() -> int:
    """Let every GPU's memory grow as it is needed, and return the number of GPUs.

    TensorFlow takes nearly all memory of a GPU otherwise, and the verifier's process would find none left. Calling it
    again changes nothing.

    Raises:
        DeviceError: If TensorFlow already runs on a GPU whose memory does not grow.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            _before_use(gpu, tf.config.experimental.set_memory_growth, gpu, True)
    return len(gpus)


def threads_in_use() -> int:
    """CPU threads of one operation: as many as were set, or as this process has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(tf.config.threading.get_intra_op_parallelism_threads()) or cores


def strategy() -> tf.distribute.Strategy:
    """Where training runs: all GPUs where there are several, the one device there is otherwise."""
    several = len(tf.config.list_logical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def _limit_memory(megabytes: int) -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=megabytes)
        given = tf.config.get_logical_device_configuration(gpu)
        if not given or given[0].memory_limit != megabytes:
            _before_use(gpu, tf.config.set_logical_device_configuration, gpu, [limit])


def _before_use(gpu: Any, change: Any, *arguments: Any) -> None:
    try:
        change(*arguments)
    except RuntimeError as error:
        raise DeviceError(
            f"{gpu.name} must be set up before TensorFlow uses it, and something used it already; call "
            "layerflow.devices.set_up() first in the process, or set TF_FORCE_GPU_ALLOW_GROWTH=true."
        ) from error
