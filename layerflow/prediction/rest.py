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

#: A model, and one of its versions: numbers that TensorFlow Serving can read have at most 19 digits.
_MODEL = r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,19})|/labels/([^/:]+))?"
_PREDICT = re.compile(f"{_MODEL}:(predict|classify|regress)", re.IGNORECASE)
_ABOUT = re.compile(f"{_MODEL}(/metadata)?", re.IGNORECASE)
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
            self._served(*which)
            async with self._turns.body_of(request) as body:
                answer = await self._turns.take(lambda: _predict(self._served(*which), body))
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
        states = self._follower.states
        if name == self._follower.model.name and version and int(version) in states:
            chosen = [int(version)]
        else:
            served = self._served(name, version, label).version
            chosen = [served] if version or label else sorted(states, reverse=True)
        return {"model_version_status": [_status_of(number, *states[number]) for number in chosen]}

    def _metadata(self, name: str, version: str | None, label: str | None) -> dict[str, Any]:
        model = self._served(name, version, label)
        return {
            "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
            "metadata": {"signature_def": {"signature_def": model.signature_def}},
        }


def _predict(model: ServedModel, body: bytes) -> bytes:
    signature, images, by_row = read_request(body, model.inputs)
    return answer_in_json(model.ask(signature, images), by_row)


def _status_of(version: int, state: str, reason: str) -> dict[str, Any]:
    status = {"error_code": "DATA_LOSS" if reason else "OK", "error_message": reason}
    return {"version": str(version), "state": state, "status": status}
