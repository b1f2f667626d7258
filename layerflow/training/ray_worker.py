"""What each worker of a training on Ray does: it trains as one process would.

TensorFlow joins it with the others, and sums the gradients of each step over all of them.
"""

import logging
import platform
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from layerflow.errors import ClusterError, LayerflowError, heals
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.ray_cluster import Place


class Job(NamedTuple):
    """What each worker must know; it goes over the network."""

    train_here: Callable[..., TrainedRef | None]
    config: TrainingConfig
    augment: AugmentConfig
    finetune: FinetuneConfig
    model: ModelRef
    data: DatasetRef
    machine: DevicesConfig
    fingerprint: str
    folder: Path
    place: Place


class _Told(logging.Handler):
    """Hands what the chief logs to the process that asked for the training."""

    def __init__(self, news: Any) -> None:
        super().__init__(logging.INFO)
        self.news = news

    def emit(self, record: logging.LogRecord) -> None:
        self.news.put(("logged", (record.name, record.levelno, "%s", record.getMessage())))


class Worker:
    """A process of the training: an actor of Ray's."""

    def address(self) -> str:
        """Host and port that TensorFlow can listen on here."""
        import ray

        with socket.create_server(("", 0)) as free:
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def work(self, job: Job, news: Any, addresses: list[str], rank: int) -> None:
        """Train with the others, and tell of it in the queue ``news``.

        An error that would occur again is reported and ends the training. Anything else is raised, and the workers
        start again.

        Args:
            addresses: Of all workers.
            rank: The place of this one among them; that of the chief is 0.
        """
        job.place.enter()
        try:
            _train(job, news, addresses, rank)
        except FileNotFoundError as error:  # no stumble: every node was seen to read the store before
            sentence = (
                f"Every node must find the files of the training, and {platform.node()} finds no {error.filename}; see "
                "that it is in the store."
            )
            news.put(("failed", ClusterError(sentence)))
        except (LayerflowError, OSError) as error:
            if heals(error):
                raise
            news.put(("failed", error))
        except Exception as error:
            if _is_loss_of_others(error):
                raise
            # In words: what a library raises may not survive the way.
            news.put(("failed", RuntimeError(f"A worker failed with this:\n{traceback.format_exc()}")))


def _train(job: Job, news: Any, addresses: list[str], rank: int) -> None:
    import keras
    import tensorflow as tf

    from layerflow import devices, memory

    devices.set_up(job.machine.model_copy(update={"threads": job.machine.threads or 1}))
    # The workers of one machine share what is free there.
    hosts = [address.rpartition(":")[0] for address in addresses]
    neighbours = hosts.count(hosts[rank])
    budget = job.config.memory_budget or max(1, memory.free_bytes() // 2**21 // neighbours)
    config = job.config.model_copy(update={"memory_budget": budget})
    together = tf.train.ClusterSpec({"worker": addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        together, task_type="worker", task_id=rank, rpc_layer="grpc"
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    callbacks = []
    if rank == 0:
        ours = logging.getLogger("layerflow")
        ours.setLevel(logging.INFO)
        ours.addHandler(_Told(news))
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: news.put(("on_epoch_begin", (epoch,))),
                on_epoch_end=lambda epoch, logs: news.put(("on_epoch_end", (epoch, logs))),
            )
        )
    how = config, job.augment, job.finetune
    made = job.train_here(*how, job.model, job.data, job.folder, job.fingerprint, callbacks, strategy)
    if made:
        news.put(("made", made))


def _is_loss_of_others(error: Exception) -> bool:
    """Whether TensorFlow says, in one of its ways, that another worker is gone."""
    import tensorflow as tf

    repeating = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError)
    return isinstance(error, tf.errors.OpError) and not isinstance(error, repeating)
