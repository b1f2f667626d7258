"""`layerflow try`: a page and a REST API that show a published model what it is given, and follow the registry."""

import contextlib
import errno
import ipaddress
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

from cli.output import local_time
from cli.server import NAMES
from cli.terminal import import_tensorflow_alone, quiet_stderr
from layerflow.errors import ServerError
from layerflow.registry import sharing, versions
from layerflow.registry.receipt import Receipt

if TYPE_CHECKING:  # it imports TensorFlow
    from layerflow.prediction.served_model import ServedModel


def serve_model(name: str | None, host: str, port: int) -> None:
    """Serve the live version, and each one that takes its place, until told to end.

    Raises:
        ServerError: If the address is taken or not this machine's.
        DamagedError: If the live version is not as it was published.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("layerflow").setLevel(logging.INFO)
    sharing.refresh_all()
    name = versions.the_name(name)
    with _listening(host, port) as listening:
        with quiet_stderr():
            import_tensorflow_alone()
            from layerflow.prediction.web import make_server
            from layerflow.registry.live import follow_live

            follower = follow_live(name)
        shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
        line = f"{name}, version {follower.model.version}: http://{shown}:{port}/ (Ctrl-C ends it)"
        server = make_server(follower, facts_of, _names(host), lambda: print(line, flush=True))
        stop = threading.Event()
        threading.Thread(target=follower.follow, args=[stop], daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            server.run(sockets=[listening])
        stop.set()


def _listening(host: str, port: int) -> socket.socket:
    """A socket on the address, so that a taken one is known before the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of this protocol by name: asyncio turns off the delay of small packets then, which takes 40 ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if not host:  # would be all addresses
            raise OSError(errno.EINVAL, "no address")
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ServerError(
            f"--host and --port must be a free address of this machine. Received: {host}, {port} ({error.strerror}); "
            "choose another port, as in layerflow try --port 8502."
        ) from error
    return listening


def _names(host: str) -> list[str]:
    """The names by which a browser may call the server: those of this machine alone, unless it was opened to others."""
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            return ["*"]
        return [*NAMES, "[::1]", host]
    return [*NAMES, "[::1]"] if host == "localhost" else ["*"]


def facts_of(model: "ServedModel") -> dict[str, Any]:
    """What the page says of a model."""
    height, width, _ = model.shape
    told = {"name": model.name, "version": model.version, "height": height, "width": width, "facts": {}}
    found = versions.receipt_of(model.name, model.version)
    if found is None:
        return told
    receipt = Receipt.model_validate(found)
    evaluation = receipt.evaluation
    interval = (
        f" (95 % interval {evaluation.accuracy_low:.3f} to {evaluation.accuracy_high:.3f})"
        if evaluation.accuracy_low is not None and evaluation.accuracy_high is not None
        else ""
    )
    facts = {
        "Accuracy": f"{evaluation.accuracy:.3f}{interval}",
        "Published": local_time(receipt.created),
        "Data": f"{receipt.data.name}, {len(model.classes)} classes",
        "Network": receipt.trained.model,
    }
    return {**told, "facts": facts}
