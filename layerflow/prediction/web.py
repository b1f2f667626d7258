"""The server of `layerflow try`: a page that takes pictures, and TensorFlow Serving's REST API."""

import base64
import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from layerflow.errors import LayerflowError, UserError
from layerflow.prediction.following import Follower
from layerflow.prediction.rest import NotServedError, RestApi
from layerflow.prediction.served_model import ServedModel
from layerflow.prediction.turns import Turns

_PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: Classes that the page shows, and pixels of the longer side of its pictures.
_TOP, _SIDE = 5, 256
#: Seconds that a client may pause between two requests, until the head of its first one is there, and that requests in
#: work get when the server ends; and most connections.
_IDLE, _HEAD, _END, _CONNECTIONS = 75, 30, 5, 500
#: The colour of the places that speak for the class: an orange that is seen on grey and on colours.
_COLOUR = (255, 96, 0)
#: The page loads nothing from elsewhere, and no other page may frame it.
_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Server(uvicorn.Server):
    """A server that says when it answers, by calling ``when_started``."""

    def __init__(self, config: uvicorn.Config, when_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = when_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()


class _Connection(H11Protocol):
    """A connection that is closed if there are too many, or if it asks for nothing."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.close()
        self.loop.call_later(_HEAD, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:  # no request has come
            self.transport.close()


def make_server(
    follower: Follower,
    facts: Callable[[ServedModel], dict[str, Any]],
    hosts: list[str],
    when_started: Callable[[], None] = lambda: None,
) -> Server:
    """A server that is ready to run.

    Args:
        follower: Holds the model.
        facts: What the page says of the model above the picture, as JSON.
        hosts: The names by which it may be called: a page of another one, rebound to this machine, is refused.
        when_started: Called once it answers.
    """
    turns = Turns()
    page = _Page(follower, facts, turns)
    app = Starlette(
        routes=[
            Route("/", _file("index.html")),
            *(Route(f"/{name}", _file(name)) for name in ("page.css", "page.js", "icon.svg")),
            Route("/model", page.model),
            Route("/answer", page.answer, methods=["POST"]),
            Route("/v1/{path:path}", RestApi(follower, turns).respond, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={HTTPException: _refused, LayerflowError: _refused, Exception: _failed},
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        headers=_HEADERS,
        lifespan="off",
        http=_Connection,
        ws="none",
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_END,
    )
    return Server(config, when_started)


class _Page:
    """What the page asks."""

    def __init__(self, follower: Follower, facts: Callable[[ServedModel], dict[str, Any]], turns: Turns) -> None:
        self._follower, self._facts, self._turns = follower, facts, turns

    async def model(self, request: Request) -> Response:
        return JSONResponse(await self._turns.take(lambda: self._facts(self._follower.model)))

    async def answer(self, request: Request) -> Response:
        async with self._turns.body_of(request) as content:
            return JSONResponse(await self._turns.take(lambda: _answer(self._follower.model, content)))


def _answer(model: ServedModel, content: bytes) -> dict[str, Any]:
    """The most probable classes of a file, what the network sees of it, and where it looks."""
    found = model.ask("image_bytes", [content])
    probabilities, pixels = found["probabilities"][0], model.pixels(content)
    top = np.argsort(-probabilities, kind="stable")[:_TOP].tolist()
    told = {
        "version": model.version,
        "top": [{"class": model.classes[number], "probability": float(probabilities[number])} for number in top],
        "seen": _png(_enlarged(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))),
        "accepted": bool(found["accepted"][0]) if "accepted" in found else None,
    }
    if isinstance(attention := model.attention, str):
        return {**told, "places": None, "no_places": f"The network can't show where it looked: {attention}."}
    return {**told, "places": _png(_overlay(attention.map(pixels, top[0]), pixels))}


def _overlay(places: np.ndarray, pixels: np.ndarray) -> Image.Image:
    """A picture to lay over what the network sees: the more a place counts, the less transparent it is."""
    size = _enlarged(Image.fromarray(pixels[..., 0])).size
    opacity = Image.fromarray((places * 220).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    overlay = Image.new("RGBA", size, _COLOUR)
    overlay.putalpha(opacity)
    return overlay


def _enlarged(image: Image.Image) -> Image.Image:
    """A small image, several times as large: a browser that enlarges it would blur its pixels."""
    factor = max(1, _SIDE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _png(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _file(name: str) -> Callable[[Request], Response]:
    content, kind = (_PAGE / name).read_bytes(), _KINDS[Path(name).suffix]
    return lambda request: Response(content, media_type=kind)


async def _refused(request: Request, error: Exception) -> Response:
    """An error in TensorFlow Serving's form, whose status is the caller's fault or a state of this server."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    status = 404 if isinstance(error, NotServedError) else 400 if isinstance(error, UserError) else 500
    return JSONResponse({"error": str(error)}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "The server failed to answer; its log has the reason."}, 500)
