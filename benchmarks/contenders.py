"""One contender of ``benchmarks/training.py``: prepares itself, then trains one epoch for each line on stdin.

Usage: ``python benchmarks/contenders.py CONTENDER TASK BATCH ARRAYS.npz``. Prints one JSON object per epoch:
``{"seconds": float}``, and at the end ``{"accuracy": float or null}`` on the test images.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Epoch = Callable[[int], None]
Predict = Callable[[np.ndarray], np.ndarray]


def keras_network(task: str, shape: tuple[int, ...]) -> Any:
    """The tutorial's network, a small one of convolutions over scaled images, or a MobileNet: of Keras' own layers."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    if task == "mobilenet":
        backbone = keras.applications.MobileNetV3Small(
            include_top=False, weights=None, input_shape=shape, pooling="avg"
        )
        return keras.Sequential([keras.Input(shape), backbone, layers.Dropout(0.2), layers.Dense(10)])
    body = (
        [layers.Flatten(), layers.Dense(64, activation="relu")]
        if task == "mlp"
        else [
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
        ]
    )
    return keras.Sequential([keras.Input((28, 28, 1)), *body, layers.Dense(10)])


def ours(task: str, batch: int, images: np.ndarray, labels: np.ndarray) -> tuple[Epoch, Predict]:
    """What `train_model` runs: the engine, with metrics, and a checkpoint at the end of the epoch."""
    import keras
    import tensorflow as tf

    from layerflow import devices
    from layerflow.config import RetrainConfig
    from layerflow.models.build import make_model
    from layerflow.models.classifier import Classifier
    from layerflow.models.mlp import Mlp
    from layerflow.models.predict import make_predictor, uses_xla
    from layerflow.settings.devices import DevicesConfig
    from layerflow.settings.model import ModelConfig
    from layerflow.settings.training import TrainingConfig
    from layerflow.training.checkpoint import Checkpoint
    from layerflow.training.engine import Engine
    from layers import Conv2D, Dense, Flatten, ReLU

    config = RetrainConfig(training=TrainingConfig(batch_size=batch))
    devices.set_up(config.devices_for_model if task == "mlp" else DevicesConfig())
    keras.utils.set_random_seed(0)
    if task == "mlp":
        network: Any = Mlp(hidden=(64,), classes=10)
        network.build((None, 28, 28, 1))
    elif task == "mobilenet":
        network = make_model(ModelConfig(name="applications:MobileNetV3Small"), 10, images.shape[1:])
    else:
        body = [Conv2D(32, 3), ReLU(), Conv2D(64, 3), ReLU(), Flatten(), Dense(128, w_initializer="he_normal"), ReLU()]
        network = Classifier(body, classes=10)
        network.build((None, 28, 28, 1))
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(network.trainable_variables)
    xla = uses_xla(network, images.shape[1:], "auto")
    engine = Engine(network, optimizer, tf.constant(images), tf.constant(labels), batch, 0, xla)
    checkpoint = Checkpoint(Path(tempfile.mkdtemp()))
    variables = [*network.weights, *optimizer.variables, *engine.variables]

    unsaved = {"trained": 0.0, "save": 0.0}  # seconds; the rule of layerflow.training.train, without the others' turns

    def epoch(number: int) -> None:
        began = time.monotonic()
        engine.start_epoch()
        while not engine.run_chunk(number):
            pass
        trained = time.monotonic()
        unsaved["trained"] += trained - began
        if unsaved["trained"] * 0.05 >= unsaved["save"]:
            checkpoint.save({f"{i}": variable.numpy() for i, variable in enumerate(variables)}, {"loss": engine.loss})
            unsaved.update(trained=0.0, save=time.monotonic() - trained)

    engine.warm_up()
    return epoch, make_predictor(network, xla)


def _fit(task: str, batch: int, images: np.ndarray, labels: np.ndarray, kind: str) -> tuple[Epoch, Predict]:
    import keras
    import tensorflow as tf

    network, scale = keras_network(task, images.shape[1:]), 1 if task == "mobilenet" else 255
    x, y = images.astype("float32") / scale, labels
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    flags: dict[str, Any] = {"steps_per_execution": -(-len(x) // batch)} if kind.startswith("best flags") else {}
    if kind == "best flags, graph":
        flags["jit_compile"] = False
    network.compile("adam", loss, metrics=["accuracy"], **flags)
    arguments: dict[str, Any] = {"x": x, "y": y, "batch_size": batch}
    if kind == "tf.data":
        data = (
            tf.data.Dataset.from_tensor_slices((x, y)).cache().shuffle(len(x)).batch(batch).prefetch(tf.data.AUTOTUNE)
        )
        arguments = {"x": data}
    elif kind.startswith("best flags"):
        arguments |= {"x": tf.constant(x), "y": tf.constant(y)}
    return (
        lambda number: network.fit(**arguments, epochs=1, verbose=0),
        lambda images: network.predict(images.astype("float32") / scale, batch_size=1000, verbose=0),
    )


def script(*arguments: Any) -> tuple[Epoch, Predict]:
    """The tutorial's script: compile and fit."""
    return _fit(*arguments, kind="script")


def tf_data(*arguments: Any) -> tuple[Epoch, Predict]:
    """The idiom of the TFDS guide: cache, shuffle, batch, prefetch, fit."""
    return _fit(*arguments, kind="tf.data")


def best_flags(*arguments: Any) -> tuple[Epoch, Predict]:
    """fit over tensors, an epoch in one execution."""
    return _fit(*arguments, kind="best flags")


def best_flags_graph(*arguments: Any) -> tuple[Epoch, Predict]:
    """The same without XLA, which Keras takes by itself."""
    return _fit(*arguments, kind="best flags, graph")


def torch(task: str, batch: int, images: np.ndarray, labels: np.ndarray) -> tuple[Epoch, Predict]:
    """PyTorch, eager, the data resident; one thread for the small network, as is fastest."""
    import torch as t
    from torch import nn

    t.manual_seed(0)
    if task == "mlp":
        t.set_num_threads(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    else:
        network = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64 * 24 * 24, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
    x = t.from_numpy(images.astype("float32") / 255).permute(0, 3, 1, 2).contiguous()
    y = t.from_numpy(labels.astype("int64"))
    optimizer, loss = t.optim.Adam(network.parameters()), nn.CrossEntropyLoss()

    def epoch(number: int) -> None:
        order = t.randperm(len(x))
        for start in range(0, len(x), batch):
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            loss(network(x[chosen]), y[chosen]).backward()
            optimizer.step()

    def predict(images: np.ndarray) -> np.ndarray:
        with t.no_grad():
            return network(t.from_numpy(images.astype("float32") / 255).permute(0, 3, 1, 2)).numpy()

    return epoch, predict


def jax(task: str, batch: int, images: np.ndarray, labels: np.ndarray) -> tuple[Epoch, Predict]:
    """JAX: one jitted scan over the epoch, Adam by hand."""
    import jax as j
    import jax.numpy as jnp

    keys = j.random.split(j.random.key(0), 2)
    weights = {
        "w1": j.random.normal(keys[0], (784, 64)) * 0.05,
        "b1": jnp.zeros(64),
        "w2": j.random.normal(keys[1], (64, 10)) * 0.05,
        "b2": jnp.zeros(10),
    }
    x, y = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    full = len(images) // batch

    def logits(w: Any, x: Any) -> Any:
        return jnp.maximum(x.astype(jnp.float32) / 255 @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]

    def loss(w: Any, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(j.nn.log_softmax(logits(w, x)), y[:, None], 1).mean()

    def step(state: Any, chosen: Any) -> Any:
        w, m, v, n = state
        value, g = j.value_and_grad(loss)(w, x[chosen], y[chosen])
        n = n + 1
        m = j.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = j.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        w = j.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), w, m, v)
        return (w, m, v, n), value

    @j.jit
    def run(state: Any, key: Any) -> Any:
        order = j.random.permutation(key, len(x))[: full * batch].reshape(full, batch)
        return j.lax.scan(step, state, order)

    zeros = j.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, zeros, jnp.float32(0))]

    def epoch(number: int) -> None:
        state[0], _ = j.block_until_ready(run(state[0], j.random.key(number)))

    return epoch, lambda images: np.asarray(logits(state[0][0], images.reshape(len(images), -1)))


def limit(task: str, batch: int, images: np.ndarray, labels: np.ndarray) -> tuple[Epoch, Predict]:
    """The epoch's convolutions and matrix products and Adam's arithmetic, and nothing else: no training is faster."""
    import tensorflow as tf

    if task == "mlp" and batch < 64:  # one thread is faster there
        tf.config.threading.set_intra_op_parallelism_threads(1)
    x = tf.constant(images.astype("float32") / 255)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "mlp": [(784, 64), (64, 10)],
        "cnn": [(3, 3, 1, 32), (3, 3, 32, 64), (24 * 24 * 64, 128), (128, 10)],
    }
    weights = [tf.Variable(tf.random.stateless_normal(shape, [1, 2]) * 0.01) for shape in shapes[task]]
    moments = [[tf.Variable(tf.zeros_like(weight)) for weight in weights] for _ in range(2)]

    @tf.function(jit_compile=True)
    def adam(gradients: list[Any]) -> None:
        for w, m, v, g in zip(weights, *moments, gradients, strict=True):
            m.assign(0.9 * m.value() + 0.1 * g)
            v.assign(0.999 * v.value() + 0.001 * g * g)
            w.assign_sub(1e-3 * m.value() / (tf.sqrt(v.value()) + 1e-7))

    @tf.function(jit_compile=task == "mlp")
    def run() -> None:
        for start in tf.range(len(images) // batch):
            with tf.GradientTape() as tape:
                outputs = tf.slice(x, [start * batch, 0, 0, 0], [batch, 28, 28, 1])
                for weight in weights:
                    if weight.shape.rank == 4:
                        outputs = tf.nn.conv2d(outputs, weight, strides=1, padding="VALID")
                    else:
                        outputs = tf.reshape(outputs, (batch, -1)) @ weight
            adam(tape.gradient(outputs, weights, output_gradients=outputs))

    return lambda number: run(), None  # type: ignore[return-value]


def main() -> None:
    """Prepare, run one epoch to warm up, then one for each line."""
    contender, task, batch, file = sys.argv[1:]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with np.load(file) as arrays:
        images, labels, test_images, test_labels = (arrays[name] for name in ("x", "y", "test_x", "test_y"))
    epoch, predict = globals()[contender](task, int(batch), images, labels)
    number = 1
    epoch(number)
    print(json.dumps({"ready": contender}), flush=True)
    for _ in sys.stdin:
        number += 1
        began = time.perf_counter()
        epoch(number)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    right = None if predict is None else float((np.argmax(predict(test_images), axis=-1) == test_labels).mean())
    print(json.dumps({"accuracy": right}), flush=True)


if __name__ == "__main__":
    main()
