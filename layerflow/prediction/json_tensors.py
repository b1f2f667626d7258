"""Requests and answers as TensorFlow Serving writes them in JSON.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from layerflow.errors import UserError, printed

#: Most images in a request. The verifier has proved batches of up to a thousand.
MOST_IMAGES = 1000
#: Most values in a request, 26 colour images of 224x224: to read more of them takes seconds.
_MOST_VALUES = 4_000_000


class Input(NamedTuple):
    """What a signature takes: ``uint8`` of shape ``(batch, *shape)``, or, without a shape, strings of ``(batch,)``."""

    name: str
    shape: tuple[int, ...] | None


class Request(NamedTuple):
    """What is asked: a signature, its input as a ``uint8`` array or as a list of files, and the form of the answer."""

    signature: str
    images: np.ndarray | list[bytes]
    by_row: bool


def read_request(body: bytes, signatures: Mapping[str, Input]) -> Request:
    """Read the body of a ``:predict`` request, in row form (``instances``) or columnar form (``inputs``).

    Args:
        body: JSON.
        signatures: What each signature of the model takes.

    Raises:
        UserError: If it is no such request.

    Example:
        >>> read_request(b'{"instances": [[1, 2]]}', {"serving_default": Input("images", (2,))}).images
        array([[1, 2]], dtype=uint8)
    """
    if body.count(b",") > _MOST_VALUES:
        raise UserError(f"The body must have at most {_MOST_VALUES:,} values. It has more; send files in base64.")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UserError(f"The body must be JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"The body must be a JSON object. Received: {_kind(content)}.")
    name = content.get("signature_name", "")
    if name == "":
        name = "serving_default"
    if not isinstance(name, str) or name not in signatures:
        raise UserError(f"signature_name must be one of {', '.join(signatures)}. Received: {printed(str(name))}.")
    given = [key for key in ("instances", "inputs") if key in content]
    if len(given) != 1:
        raise UserError(f"The body must have instances or inputs. Received: {' and '.join(given) or 'neither'}.")
    by_row, (input_name, shape) = given == ["instances"], signatures[name]
    values = (_of_rows if by_row else _of_columns)(content[given[0]], input_name)
    if not isinstance(values, list) or not 0 < len(values) <= MOST_IMAGES:
        received = f"{len(values):,}" if isinstance(values, list) else _kind(values)
        raise UserError(f"{given[0]} must be a list of 1 to {MOST_IMAGES:,} images. Received: {received}.")
    images = [_file(value, row) for row, value in enumerate(values)] if shape is None else _array(values, shape)
    return Request(name, images, by_row)


def answer_in_json(answers: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The body of the answer, in the form of the request. The name is left out where there is one output."""
    told = {name: value if value.dtype != object else _texts(value) for name, value in answers.items()}
    (first, *others) = told.values()
    content: Any
    if by_row:
        content = {"predictions": first if not others else _rows(told)}
    else:
        content = {"outputs": first if not others else told}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _rows(answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") for value in values.tolist()]


def _of_rows(value: Any, name: str) -> Any:
    """The values of a list; each is either the input itself or an object that names it."""
    return [_named(each, name) for each in value] if isinstance(value, list) else value


def _of_columns(value: Any, name: str) -> Any:
    return _named(value, name)


def _named(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or _is_binary(value):
        return value
    if value.keys() != {name}:
        received = ", ".join(printed(each, 50) for each in list(value)[:10]) or "none"
        raise UserError(f"The signature takes one input, {name}. Received: {received}.")
    return value[name]


def _is_binary(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _file(value: Any, row: int) -> bytes:
    """A file: a text, or base64 in an object, as white space and a lack of padding do no harm to."""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict) or not _is_binary(value):
        raise UserError(f'Image {row} must be {{"b64": "…"}}, a file in base64. Received: {_kind(value)}.')
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"Image {row} must be in base64. It is not.") from None


def _array(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    wanted = f"The images must be whole numbers from 0 to 255 of shape (batch, {', '.join(map(str, shape))})."
    try:
        found = np.array(values, dtype=object)  # of references: no text and no number is copied or converted
    except ValueError:
        raise UserError(f"{wanted} Received: lists of different lengths.") from None
    if found.shape[1:] != shape:
        raise UserError(f"{wanted} Received: ({', '.join(map(str, found.shape))}).")
    numbers = found.ravel().tolist()
    if others := set(map(type, numbers)) - {int}:
        raise UserError(f"{wanted} Received: {', '.join(sorted(_KINDS.get(each, 'a list') for each in others))}.")
    if (low := min(numbers)) < 0 or (high := max(numbers)) > 255:
        raise UserError(f"{wanted} Received: {low if low < 0 else high}.")
    return np.array(numbers, np.uint8).reshape(found.shape)


_KINDS = {
    dict: "an object",
    str: "a text",
    float: "a fraction, or a number beyond 64 bits",
    int: "a number",
    bool: "true or false",
}
_KINDS |= {list: "a list", type(None): "null"}


def _kind(value: Any) -> str:
    return _KINDS[type(value)]
