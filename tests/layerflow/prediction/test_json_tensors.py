"""Requests and answers in TensorFlow Serving's JSON, by its documentation of the REST API."""

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerflow.errors import UserError
from layerflow.prediction.json_tensors import MOST_IMAGES, Input, answer_in_json, read_request

SIGNATURES = {"serving_default": Input("images", (2, 1)), "image_bytes": Input("image_bytes", None)}
IMAGES = [[[1], [2]], [[3], [255]]]
FILE = b"\xff\xd8\xff\x00 a file"
BINARY = {"b64": base64.b64encode(FILE).decode()}


def read(content: object) -> tuple[str, list[object], bool]:
    found = read_request(json.dumps(content).encode(), SIGNATURES)
    return found.signature, [*found.images], found.by_row


@pytest.mark.parametrize(
    "content",
    [
        {"instances": IMAGES},
        {"instances": [{"images": each} for each in IMAGES]},
        {"inputs": IMAGES},
        {"inputs": {"images": IMAGES}},
        {"signature_name": "", "inputs": IMAGES},
        {"signature_name": "serving_default", "inputs": IMAGES},
    ],
)
def test_numbers_come_in_row_and_columnar_form_with_and_without_their_name(content: dict[str, object]) -> None:
    found = read_request(json.dumps(content).encode(), SIGNATURES)
    assert (found.signature, found.by_row) == ("serving_default", "instances" in content)
    assert isinstance(found.images, np.ndarray)
    assert found.images.dtype == np.uint8
    assert found.images.tolist() == IMAGES


@pytest.mark.parametrize(
    "values",
    [
        {"instances": [BINARY, BINARY]},
        {"instances": [{"image_bytes": BINARY}, BINARY]},
        {"inputs": [BINARY, BINARY]},
        {"inputs": {"image_bytes": [BINARY, BINARY]}},
        {"inputs": [{"b64": BINARY["b64"].rstrip("=")}, {"b64": "\n".join(BINARY["b64"])}]},
    ],
)
def test_files_come_in_base64(values: dict[str, object]) -> None:
    assert read({"signature_name": "image_bytes", **values}) == ("image_bytes", [FILE, FILE], "instances" in values)


def test_the_answer_has_the_form_of_the_request() -> None:
    answers = {
        "probabilities": np.array([[0.1, 0.9], [0.7, 0.3]], np.float32),
        "class_id": np.array([1, 0]),
        "label": np.array(["räv".encode(), b"hund"], object),
    }
    rows = json.loads(answer_in_json(answers, by_row=True))
    assert rows == {
        "predictions": [
            {"probabilities": [0.1, 0.9], "class_id": 1, "label": "räv"},
            {"probabilities": [0.7, 0.3], "class_id": 0, "label": "hund"},
        ]
    }
    columns = json.loads(answer_in_json(answers, by_row=False))
    assert columns == {
        "outputs": {"probabilities": [[0.1, 0.9], [0.7, 0.3]], "class_id": [1, 0], "label": ["räv", "hund"]}
    }


def test_the_name_of_a_single_output_is_left_out() -> None:
    answers = {"embedding": np.array([[0.5, 1]], np.float32)}
    assert json.loads(answer_in_json(answers, by_row=True)) == {"predictions": [[0.5, 1.0]]}
    assert json.loads(answer_in_json(answers, by_row=False)) == {"outputs": [[0.5, 1.0]]}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_number_comes_back_as_the_same_float32(numbers: list[float]) -> None:
    told = json.loads(answer_in_json({"embedding": np.array([numbers], np.float32)}, by_row=True))
    np.testing.assert_array_equal(np.array(told["predictions"][0], np.float32), np.array(numbers, np.float32))


WRONG = [
    (b"", "The body must be JSON: "),
    (b"[" * 100_000, "The body must be JSON: "),
    (b'{"instances": [NaN]}', "The body must be JSON: "),
    (b"[1]", "The body must be a JSON object. Received: a list."),
    (b"{}", "The body must have instances or inputs. Received: neither."),
    (b'{"instances": [], "inputs": []}', "instances or inputs. Received: instances and inputs."),
    (b'{"instances": []}', "instances must be a list of 1 to 1,000 images. Received: 0."),
    (b'{"inputs": 5}', "inputs must be a list of 1 to 1,000 images. Received: a number."),
    (b'{"instances": "a"}', "instances must be a list of 1 to 1,000 images. Received: a text."),
    (
        b'{"signature_name": "x", "inputs": [1]}',
        "signature_name must be one of serving_default, image_bytes. Received: x.",
    ),
    (b'{"signature_name": ["x"], "inputs": [1]}', "signature_name must be one of "),
    (b'{"signature_name": null, "inputs": [1]}', "signature_name must be one of "),
    (b'{"signature_name": 0, "inputs": [1]}', "signature_name must be one of "),
    (b'{"instances": [' + b"[]," * 4_000_001 + b"[]]}", "The body must have at most 4,000,000 values."),
    (b'{"instances": [{"pixels": 1}]}', "The signature takes one input, images. Received: pixels."),
    (b'{"inputs": {"images": [1], "x": 1}}', "The signature takes one input, images. Received: images, x."),
    (b'{"instances": [[1, 2]]}', "of shape (batch, 2, 1). Received: (1, 2)."),
    (b'{"instances": [[[1], [2]], [[3]]]}', "of shape (batch, 2, 1). Received: "),
    (b'{"instances": [[[1], [[2]]]]}', "of shape (batch, 2, 1). Received: "),
    (b'{"instances": [[[1], [256]]]}', "whole numbers from 0 to 255 of shape (batch, 2, 1). Received: 256."),
    (b'{"instances": [[[1], [-1]]]}', "Received: -1."),
    (b'{"instances": [[[1], [99999999999999999999999]]]}', "Received: a fraction, or a number beyond 64 bits."),
    (b'{"instances": [[[1], [1.5]]]}', "Received: a fraction, or a number beyond 64 bits."),
    (b'{"instances": [[[1], ["2"]]]}', "Received: a text."),
    (b'{"instances": [[[1], [true]]]}', "Received: true or false."),
    (b'{"instances": [[[1], [null]]]}', "Received: null."),
    (b'{"instances": [[[1], [{"b64": ""}]]]}', "Received: an object."),
    (b'{"signature_name": "image_bytes", "instances": [5]}', 'Image 0 must be {"b64": "'),
    (b'{"signature_name": "image_bytes", "instances": [{"b64": "A"}]}', "Image 0 must be in base64. It is not."),
    (b'{"signature_name": "image_bytes", "instances": [{"b64": "\xc3\xa9A=="}]}', "Image 0 must be in base64."),
    (
        b'{"signature_name": "image_bytes", "instances": ["a", {"b64": 5}]}',
        "takes one input, image_bytes. Received: b64.",
    ),
]


@pytest.mark.parametrize(("body", "sentence"), WRONG, ids=range(len(WRONG)))
def test_anything_else_is_one_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as found:
        read_request(body, SIGNATURES)
    assert "\n" not in str(found.value)


def test_a_batch_has_a_limit() -> None:
    files = [BINARY] * (MOST_IMAGES + 1)
    with pytest.raises(UserError, match=r"must be a list of 1 to 1,000 images\. Received: 1,001"):
        read({"signature_name": "image_bytes", "instances": files})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "images", "x"]), inner),
)


@given(json_values, st.sampled_from(["instances", "inputs"]), st.sampled_from(list(SIGNATURES)))
def test_whatever_json_comes_is_read_or_refused(value: object, key: str, signature: str) -> None:
    body = json.dumps({"signature_name": signature, key: value}).encode("utf-8", "replace")
    try:
        found = read_request(body, SIGNATURES)
    except UserError:
        return
    assert len(found.images)
