"""The server of `layerflow try`: a page that takes pictures, and TensorFlow Serving's REST API."""

import base64
import io
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
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from layerflow.errors import LayerflowError, UserError
from layerflow.prediction.following import Follower
from layerflow.prediction.rest import NotServedError, RestApi
from layerflow.prediction.served_model import ServedModel
from layerflow.prediction.turns import Turns

_PAGE = Path(__file__).parent / "page"
#: Classes that the page shows, and pixels of the longer side of its pictures.
_TOP, _SIDE = 5, 256
#: Seconds that a client may pause without losing its connection.
_IDLE = 75
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
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def make_server(follower: Follower, facts: Callable[[int], dict[str, Any]], hosts: list[str]) -> uvicorn.Server:
    """A server that is ready to run.

    Args:
        follower: Holds the model.
        facts: What the page says of a version above the picture, as JSON.
        hosts: The names by which it may be called: a page of another one, rebound to this machine, is refused.
    """
    turns = Turns()
    page = _Page(follower, facts, turns)
    files = [Route(f"/{name}", _file(name)) for name in ("page.css", "page.js", "icon.svg")]
    app = Starlette(
        routes=[
            Route("/", _file("index.html")),
            *files,
            Route("/model", page.model),
            Route("/answer", page.answer, methods=["POST"]),
            Route("/v1/{path:path}", RestApi(follower, turns).respond, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={HTTPException: _refused, LayerflowError: _refused, Exception: _failed},
    )
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, headers=_HEADERS, lifespan="off", timeout_keep_alive=_IDLE
    )
    return uvicorn.Server(config)


class _Page:
    """What the page asks."""

    def __init__(self, follower: Follower, facts: Callable[[int], dict[str, Any]], turns: Turns) -> None:
        self._follower, self._facts, self._turns = follower, facts, turns

    async def model(self, request: Request) -> Response:
        return JSONResponse(await self._turns.take(self._facts, self._follower.model.version))

    async def answer(self, request: Request) -> Response:
        async with self._turns.admitted():
            content = await self._turns.body_of(request)
            return JSONResponse(await self._turns.take(_answer, self._follower.model, content))


def _answer(model: ServedModel, content: bytes) -> dict[str, Any]:
    """The most probable classes of a file, what the network sees of it, and where it looks."""
    found = model.ask("image_bytes", [content])
    probabilities, pixels = found["probabilities"][0], model.pixels(content)
    top = np.argsort(-probabilities, kind="stable")[:_TOP].tolist()
    told = {
        "version": model.version,
        "top": [{"class": model.classes[number], "probability": float(probabilities[number])} for number in top],
        "seen": _png(_enlarged(Image.fromarray(pixels.squeeze()))),
        "accepted": bool(found["accepted"][0]) if "accepted" in found else None,
    }
    try:
        places = model.attention.map(pixels, top[0])
    except ValueError as error:
        return {**told, "places": None, "no_places": f"The network can't show where it looked: {error}."}
    return {**told, "places": _png(_overlay(places, pixels))}


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
    def respond(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return respond


async def _refused(request: Request, error: Exception) -> Response:
    """An error in TensorFlow Serving's form, whose status is the caller's fault or a state of this server."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    status = 404 if isinstance(error, NotServedError) else 400 if isinstance(error, UserError) else 500
    return JSONResponse({"error": str(error)}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "The server failed to answer; its log has the reason."}, 500)
