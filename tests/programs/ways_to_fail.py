"""A network that fails in the way that it is told."""

import os
import resource
import signal


def net(classes, image_shape, way="well"):
    if way == "full" and os.path.exists("disk-is-full"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # whatever is written fails, the log of the trial too
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "wrong":
        raise ValueError("the way is wrong")
    import keras

    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(classes)])
