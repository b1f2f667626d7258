"""TensorFlow Serving's REST API for one model.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from layerflow.errors import UserError, printed
from layerflow.prediction.following import Follower
from layerflow.prediction.json_tensors import answer_in_json, read_request
from layerflow.prediction.served_model import ServedModel
from layerflow.prediction.turns import Turns

_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(predict|classify|regress)", re.I)
_ABOUT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", re.I)
#: The label of the version that is served, as ``layerflow serving-config`` gives it.
_LIVE = "live"


class NotServedError(UserError):
    """No such model, version or label is served here."""


class RestApi:
    """Answers ``GET /v1/models/NAME`` and ``POST /v1/models/NAME:predict``, for the version that is served."""

    def __init__(self, follower: Follower, turns: Turns) -> None:
        self._follower, self._turns = follower, turns

    async def respond(self, request: Request) -> Response:
        """The answer to any request below ``/v1/``.

        Raises:
            UserError: If it can't be answered; the sentence is for whoever asks.
        """
        path = request.url.path
        if request.method == "POST" and (found := _PREDICT.fullmatch(path)):
            *which, method = found.groups()
            if method.lower() != "predict":
                raise UserError(f"The model's signatures are for :predict. Received: :{method}.")
            async with self._turns.admitted():
                model = self._served(*which)
                body = await self._turns.body_of(request)
                answer = await self._turns.take(_predict, model, body)
            return Response(answer, media_type="application/json")
        if request.method in ("GET", "HEAD") and (found := _ABOUT.fullmatch(path)):
            *which, metadata = found.groups()
            return JSONResponse(self._metadata(*which) if metadata else self._status(*which))
        raise UserError(f"Malformed request: {request.method} {printed(path)}")

    def _served(self, name: str, version: str | None, label: str | None) -> ServedModel:
        """The model that answers now.

        Raises:
            NotServedError: If it is not the one that is meant.
        """
        model = self._follower.model
        if name != model.name or (version and int(version) != model.version) or label not in (None, _LIVE):
            asked = f"Specific({name}, {version or label})" if version or label else f"Latest({name})"
            raise NotServedError(
                f"Servable not found for request: {printed(asked)}; version {model.version} of {model.name} is served"
            )
        return model

    def _status(self, name: str, version: str | None, label: str | None) -> dict[str, Any]:
        """What is served, loaded and refused."""
        follower = self._follower
        told = {follower.model.version: _state("AVAILABLE")}
        if follower.loading:
            told[follower.loading] = _state("LOADING")
        told |= {number: _state("END", "DATA_LOSS", reason) for number, reason in follower.refused.items()}
        if name != follower.model.name or not version or int(version) not in told:
            chosen = [self._served(name, version, label).version] if version or label else sorted(told, reverse=True)
            self._served(name, None, None)
        else:
            chosen = [int(version)]
        return {"model_version_status": [{"version": str(number), **told[number]} for number in chosen]}

    def _metadata(self, name: str, version: str | None, label: str | None) -> dict[str, Any]:
        model = self._served(name, version, label)
        return {
            "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
            "metadata": {"signature_def": {"signature_def": model.signature_def}},
        }


def _predict(model: ServedModel, body: bytes) -> bytes:
    signature, images, by_row = read_request(body, model.inputs)
    return answer_in_json(model.ask(signature, images), by_row)


def _state(state: str, code: str = "OK", message: str = "") -> dict[str, Any]:
    return {"state": state, "status": {"error_code": code, "error_message": message}}
