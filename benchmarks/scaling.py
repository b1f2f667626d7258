"""How data-parallel training scales: measured with one and two workers on this machine, predicted for 8 to 64.

Usage: ``python benchmarks/scaling.py [GBIT LATENCY_US]``: the network for which it is predicted, 10 Gbit/s and 50
microseconds a message unless given. Each worker is a process with one thread, joined as `training.workers` joins them,
but without Ray, which has no part in a step. Measured are the step of one worker by batch size, the step of two
workers, and the all-reduce of two by size. A step of n workers is then predicted as

    compute(batch / n) + messages * 2 (n - 1) * latency + 2 (n - 1) / n * bytes / bandwidth

which is a ring's time, the number of sums (all-reduces) in a step's graph as `messages`, the gradients as `bytes`.
Of several times the least counts: that in which nobody else wanted the two cores. Prints the tables and draws
docs/scaling.png.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
#: The networks, as `model.name` and its settings, and the images of a step over all workers.
NETWORKS: dict[str, dict[str, Any]] = {"mlp": {"hidden": (128,)}, "cnn": {"width": 16}, "resnet": {"width": 16}}
BATCH = 256
SHARES = (BATCH, BATCH // 2, BATCH // 8, BATCH // 32)
#: Bytes of the all-reduces that are timed.
SIZES = (4, 2**14, 2**18, 2**20, 2**22, 2**24)
STEPS, EPOCHS, REPEATS = 8, 8, 50
WORKERS = (1, 2, 4, 8, 16, 32, 64)
GBIT, LATENCY_US = (float(each) for each in (sys.argv[1:3] if len(sys.argv) == 3 else (10, 50)))


def seconds_a_step(name: str, batch: int, strategy: Any) -> tuple[float, int, int]:
    """Least seconds of a step over ``batch`` images of MNIST's shape, its all-reduces, and its gradients' bytes."""
    import keras

    from layerflow.models.build import make_model
    from layerflow.settings.model import ModelConfig
    from layerflow.training.engine import Engine

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (STEPS * batch, 28, 28, 1), np.uint8)
    labels = random.integers(0, 10, len(images)).astype(np.int32)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = make_model(ModelConfig(name=name, **NETWORKS[name]), 10, (28, 28, 1))
        optimizer = keras.optimizers.Adam()
        optimizer.build(network.trainable_variables)
    engine = Engine(network, optimizer, images, labels, batch, 0, xla=False, strategy=strategy)
    seconds = []
    for epoch in range(EPOCHS + 1):
        engine.start_epoch()
        engine._chunk = STEPS
        began = time.perf_counter()
        while not engine.run_chunk(epoch + 1):
            pass
        seconds.append((time.perf_counter() - began) / STEPS)
    functions = engine._run.get_concrete_function(*_window(engine)).graph.as_graph_def().library.function
    messages = sum(node.op.startswith("CollectiveReduce") for function in functions for node in function.node_def)
    gradients = sum(4 * int(np.prod(each.shape)) for each in network.trainable_variables)
    return min(seconds[1:]), messages, gradients


def _window(engine: Any) -> tuple[Any, ...]:
    import tensorflow as tf

    window = engine.windows.blank()
    return window.images, window.labels, tf.constant(window.start), tf.constant(window.stop)


def seconds_an_all_reduce(size: int, strategy: Any) -> float:
    """Least seconds of the sum of ``size`` bytes of float32 over all workers."""
    import tensorflow as tf

    mine = tf.ones(max(1, size // 4))

    def sum_of_all() -> Any:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, mine)

    together = tf.function(lambda: strategy.run(sum_of_all))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        together()
        seconds.append(time.perf_counter() - began)
    return min(seconds[2:])


def measure() -> dict[str, Any]:
    """What one of the workers measures; which one it is stands in TF_CONFIG, if it is one of several."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    several = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    if several:
        steps: Any = {name: seconds_a_step(name, BATCH, strategy) for name in NETWORKS}
        return {"steps": steps, "sums": [seconds_an_all_reduce(size, strategy) for size in SIZES]}
    return {name: [seconds_a_step(name, share, strategy)[0] for share in SHARES] for name in NETWORKS}


def run(workers: int) -> dict[str, Any]:
    """Measure with so many processes, and return what the first says."""
    addresses = []
    for _ in range(workers):
        with socket.create_server(("127.0.0.1", 0)) as free:
            addresses.append(f"127.0.0.1:{free.getsockname()[1]}")
    processes = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **({"TF_CONFIG": json.dumps(task)} if workers > 1 else {}),
        }
        command = [sys.executable, __file__, "measure"]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed")
    return json.loads(said[0].splitlines()[-1])


def predict(compute: np.ndarray, messages: int, size: int, workers: int, latency: float, bandwidth: float) -> float:
    """Seconds of a step; ``compute`` holds seconds an image and seconds a step."""
    if workers == 1:
        return float(compute @ [BATCH, 1])
    ring = messages * 2 * (workers - 1) * latency + 2 * (workers - 1) / workers * size / bandwidth
    return float(compute @ [BATCH / workers, 1]) + ring


def draw(speedups: dict[str, dict[str, list[float]]], measured: dict[str, float]) -> None:
    """Speed by number of workers, to docs/scaling.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, (name, lines) in zip(figure.subplots(1, len(speedups)), speedups.items(), strict=True):
        axis.plot(WORKERS, WORKERS, color="grey", linestyle=":", label="ideal")
        for label, line in lines.items():
            axis.plot(WORKERS, line, marker=".", label=f"predicted, {label}")
        axis.plot([2], [measured[name]], "k*", markersize=10, label="measured, two workers here")
        axis.set(title=name, xlabel="workers", xscale="log", yscale="log", ylim=(0.01, 70))
        axis.set_xticks(WORKERS, [str(each) for each in WORKERS])
        axis.minorticks_off()
    figure.axes[0].set_ylabel("times as fast as one")
    figure.axes[-1].legend(fontsize=6)
    figure.savefig(ROOT / "docs" / "scaling.png", dpi=110)


def main() -> None:
    """Measure, fit, predict, print, draw."""
    one, two = run(1), run(2)
    slope, offset = np.polyfit(SIZES, two["sums"], 1, w=1 / np.array(two["sums"]))
    latency, bandwidth = offset / 2, 1 / slope
    console = Console(width=140)
    sums = ", ".join(f"{size:,} B {1e3 * each:.2f} ms" for size, each in zip(SIZES, two["sums"], strict=True))
    console.print(f"all-reduce of two workers: {sums}")
    console.print(f"so latency {1e6 * latency:.0f} us a message, bandwidth {bandwidth / 2**20:,.0f} MiB/s")
    links = {
        "this machine": (latency, bandwidth),
        f"{GBIT:.0f} Gbit/s": (latency + LATENCY_US / 1e6, GBIT * 1e9 / 8),
    }
    speedups: dict[str, dict[str, list[float]]] = {}
    measured = {}
    table = Table("network", "link", "sums", "KiB", *(f"{n}" for n in WORKERS), title="milliseconds a step")
    for name in NETWORKS:
        compute = np.polyfit(SHARES, one[name], 1, w=1 / np.array(one[name]))
        step, messages, size = two["steps"][name]
        measured[name] = one[name][0] / step
        cells = f"{1e3 * one[name][0]:.2f}", f"{1e3 * step:.2f}"
        table.add_row(name, "measured", str(messages), f"{size / 1024:.0f}", *cells)
        speedups[name] = {}
        for label, link in links.items():
            times = [predict(compute, messages, size, n, *link) for n in WORKERS]
            speedups[name][label] = [times[0] / each for each in times]
            table.add_row(name, label, "", "", *(f"{1e3 * each:.2f}" for each in times))
    console.print(table)
    draw(speedups, measured)


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        main()
