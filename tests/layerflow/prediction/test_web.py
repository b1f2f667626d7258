"""The server of `layerflow try`, over HTTP: TensorFlow Serving's REST API, by its documentation, and the page's own."""

import base64
import contextlib
import gzip
import http.client
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cli.try_model import facts_of
from layerflow.data.arrays import images_and_labels
from layerflow.outcomes import Promotion
from layerflow.prediction import turns, web
from layerflow.prediction.following import Follower
from layerflow.prediction.web import Server, make_server
from layerflow.registry.layout import home
from layerflow.registry.live import follow_live
from layerflow.registry.receipt import Challenger
from tests import image_files

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


class Served(NamedTuple):
    follower: Follower
    port: int
    server: Server
    thread: threading.Thread

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def predict(self, content: dict[str, Any], version: str = "") -> tuple[int, Any]:
        return self.ask("POST", f"/v1/models/{NAME}{version}:predict", json.dumps(content).encode())


@pytest.fixture
def served(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The server with a published model, which is the poor one, in a thread of this process."""
    monkeypatch.setattr(web, "_END", 1)
    decide("poor")
    follower = follow_live(NAME)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = make_server(follower, facts_of, ["127.0.0.1"])
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(follower, listening.getsockname()[1], server, thread)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def images(contenders: dict[str, Challenger]) -> np.ndarray:
    return np.array(images_and_labels(contenders["good"].data, "test")[0][:7])


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.squeeze()).save(content, "PNG")
    return content.getvalue()


def in_base64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def test_the_status_is_that_of_the_version_in_service(served: Served) -> None:
    available = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    for path in (NAME, f"{NAME}/versions/1", f"{NAME}/labels/live"):
        assert served.ask("GET", f"/v1/models/{path}") == (200, available)
    for path in ("other", "other/versions/1", f"{NAME}/versions/2", f"{NAME}/labels/canary"):
        status, told = served.ask("GET", f"/v1/models/{path}")
        assert status == 404
        assert told["error"].startswith("Servable not found for request: ")


def test_the_metadata_are_those_of_the_saved_model(served: Served) -> None:
    status, told = served.ask("GET", f"/v1/models/{NAME}/metadata")
    assert (status, told["model_spec"]) == (200, {"name": NAME, "signature_name": "", "version": "1"})
    signatures = told["metadata"]["signature_def"]["signature_def"]
    given = signatures["serving_default"]["inputs"]["images"]
    assert given["dtype"] == "DT_UINT8"
    assert [side["size"] for side in given["tensor_shape"]["dim"]] == ["-1", "8", "8", "1"]
    assert signatures["image_bytes"]["method_name"] == "tensorflow/serving/predict"


def test_numbers_and_files_get_the_answers_of_the_model(served: Served, images: np.ndarray) -> None:
    expected = served.follower.model.ask("serving_default", images)
    files = [in_base64(png(image)) for image in images]
    rows = [
        served.predict({"instances": images.tolist()}),
        served.predict({"instances": images.tolist()}, "/versions/1"),
        served.predict({"signature_name": "image_bytes", "instances": files}, "/labels/live"),
    ]
    for status, told in rows:
        assert status == 200
        assert [each["class_id"] for each in told["predictions"]] == expected["class_id"].tolist()
        found = np.array([each["probabilities"] for each in told["predictions"]], np.float32)
        np.testing.assert_allclose(found, expected["probabilities"], rtol=1e-5, atol=1e-7)
    assert [each["label"] for each in rows[-1][1]["predictions"]] == [str(each) for each in expected["class_id"]]
    columns = served.predict({"signature_name": "image_bytes", "inputs": {"image_bytes": files}})[1]
    assert columns["outputs"].keys() == {"class_id", "label", "probabilities"}
    assert columns["outputs"]["class_id"] == expected["class_id"].tolist()
    embedding = served.predict({"signature_name": "embedding", "instances": images.tolist()})[1]
    assert np.shape(embedding["predictions"]) == (7, 2)  # the poor model has two hidden units


def bomb() -> bytes:
    """A PNG of a few bytes that claims 1.6 thousand million pixels."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "PNG")
    side, header = (40_000).to_bytes(4, "big"), bytearray(content.getvalue())
    header[16:24] = side + side
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header)


def large(side: int) -> bytes:
    content = io.BytesIO()
    Image.new("1", (side, side)).save(content, "PNG")
    return content.getvalue()


def test_what_is_no_image_is_refused_with_one_sentence(served: Served, images: np.ndarray) -> None:
    good = png(images[0])
    cmyk = image_files.REFUSED["jpeg-cmyk"][0](np.random.default_rng(0), 9, 9)
    for files, sentence in (
        ([b"no image"], "The model can't decode the image: no image. Send"),
        ([good, b""], "The model can't decode image 1: "),
        ([good, good, good[:-30]], "The model can't decode "),
        ([good, cmyk], "The model can't decode image 1: is a CMYK JPEG"),
        ([good, bomb()], "The model can't decode image 1: "),
        ([large(8000)] * 2, "must have at most 100,000,000 pixels together. Received: 128,000,000; send"),
    ):
        content = {"signature_name": "image_bytes", "instances": [in_base64(each) for each in files]}
        status, told = served.predict(content)
        assert status == 400
        assert sentence in told["error"]
        assert "\n" not in told["error"]
    status, told = served.predict({"instances": images[..., 0].tolist()})
    assert (status, told) == (
        400,
        {"error": "The images must be whole numbers from 0 to 255 of shape (batch, 8, 8, 1). Received: (7, 8, 8)."},
    )
    assert served.predict({"instances": images.tolist()})[0] == 200


def test_other_requests_are_refused_as_tensorflow_serving_refuses_them(served: Served) -> None:
    for method, path, status in (
        ("POST", "/v1/models/other:predict", 404),
        ("POST", f"/v1/models/{NAME}/versions/7:predict", 404),
        ("POST", f"/v1/models/{NAME}/versions/{'9' * 5000}:predict", 400),
        ("GET", f"/v1/models/{NAME}/versions/{'9' * 5000}", 400),
        ("GET", f"/v1/models/{NAME}/versions/%D9%A1", 400),
        ("POST", f"/v1/models/{NAME}/labels/previous:predict", 404),
        ("POST", f"/v1/models/{NAME}:classify", 400),
        ("POST", f"/v1/models/{NAME}", 400),
        ("GET", f"/v1/models/{NAME}:predict", 400),
        ("GET", "/v1/models", 400),
        ("GET", "/other", 404),
        ("DELETE", f"/v1/models/{NAME}", 405),
    ):
        found, told = served.ask(method, path, b"{}" if method == "POST" else None)
        assert (found, list(told)) == (status, ["error"]), path


def test_a_body_that_is_too_large_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST_BYTES", 1000)
    status, told = served.ask("POST", f"/v1/models/{NAME}:predict", b" " * 1001)
    assert (status, told["error"]) == (413, "A request must have at most 1,000 bytes; send fewer images.")


def test_a_body_that_does_not_come_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(
            f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_too_many_requests_are_told_to_come_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST", 0)
    status, told = served.ask("POST", f"/v1/models/{NAME}:predict", b"{}")
    assert (status, told["error"]) == (503, "0 requests are waiting; ask again later.")
    monkeypatch.setattr(turns, "_MOST_HELD", 1)
    status, told = served.ask("POST", f"/v1/models/{NAME}:predict", b"{}")
    assert (status, told["error"]) == (503, "Too many large requests arrive; ask again later.")


def test_clients_that_send_nothing_or_part_of_it_keep_nobody_out(
    served: Served, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "_HEAD", 0.2)
    monkeypatch.setattr(web, "_CONNECTIONS", 150)
    part = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{{".encode()
    with contextlib.ExitStack() as stack:
        for content in (*[part] * 70, *[b""] * 200):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            with contextlib.suppress(ConnectionError):
                slow.sendall(content)
        time.sleep(0.1)
        assert len(served.server.server_state.connections) <= 150
        time.sleep(0.4)
        slow.settimeout(5)
        assert slow.recv(1) == b""  # closed
        assert served.predict({"instances": images.tolist()})[0] == 200
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_body_may_be_packed_by_gzip(served: Served, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    body, path = json.dumps({"instances": images.tolist()}).encode(), f"/v1/models/{NAME}:predict"
    packed = {"Content-Encoding": "gzip"}
    assert served.ask("POST", path, gzip.compress(body), **packed) == served.ask("POST", path, body)
    assert served.ask("POST", path, body, **packed)[0] == 400
    assert served.ask("POST", path, body, **{"Content-Encoding": "br"})[0] == 415
    monkeypatch.setattr(turns, "_MOST_BYTES", len(body) - 1)
    assert served.ask("POST", path, gzip.compress(body), **packed)[0] == 413


def test_the_server_ends_though_a_client_never_finishes(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(
            f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        time.sleep(0.2)
        served.server.should_exit = True
        served.thread.join(timeout=10)
        assert not served.thread.is_alive()


def test_a_page_of_another_name_is_refused(served: Served) -> None:
    """One whose name was rebound to this machine could read the answers."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 400


def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200
        assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
        assert "//" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("// ", "")


def test_a_picture_gets_its_classes_its_pixels_and_where_the_network_looked(served: Served, images: np.ndarray) -> None:
    status, told = served.ask("POST", "/answer", png(images[0]))
    expected = served.follower.model.ask("serving_default", images[:1])["probabilities"][0]
    assert (status, told["version"], told["accepted"], len(told["top"])) == (200, 1, None, 5)
    assert told["top"][0]["class"] == str(expected.argmax())
    shares = [each["probability"] for each in told["top"]]
    np.testing.assert_allclose(shares, np.sort(expected)[::-1][:5], rtol=1e-5)
    seen, places = (
        Image.open(io.BytesIO(base64.b64decode(told[name].partition(",")[2]))) for name in ("seen", "places")
    )
    assert np.asarray(seen.resize((8, 8), Image.Resampling.NEAREST)).tolist() == images[0, ..., 0].tolist()
    assert (places.mode, places.size) == ("RGBA", seen.size)
    assert np.asarray(places)[..., 3].max() > 100
    assert served.ask("POST", "/answer", b"no image")[0] == 400


def test_the_facts_are_those_of_the_receipt(served: Served) -> None:
    status, told = served.ask("GET", "/model")
    assert (status, told["name"], told["version"], told["height"]) == (200, NAME, 1, 8)
    assert told["facts"]["Accuracy"].startswith(
        f"{json.loads((home(NAME) / '1/assets.extra/receipt.json').read_text())['evaluation']['accuracy']:.3f} (95 % "
    )
    assert told["facts"]["Data"] == "digits, 10 classes"


def test_a_new_version_takes_over_and_a_damaged_one_does_not(
    served: Served, decide: Decide, images: np.ndarray
) -> None:
    before = served.predict({"instances": images.tolist()})[1]
    decide("good")
    weights = next((home(NAME) / "2" / "variables").glob("*.data*"))
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    served.follower.check()
    told = served.ask("GET", f"/v1/models/{NAME}")[1]["model_version_status"]
    assert [(each["version"], each["state"]) for each in told] == [("2", "END"), ("1", "AVAILABLE")]
    assert "must be as it was published" in told[0]["status"]["error_message"]
    assert served.predict({"instances": images.tolist()})[1] == before
    weights.write_bytes(whole)
    served.follower._tried = -1000
    served.follower.check()
    after = served.predict({"instances": images.tolist()})[1]
    assert after != before
    assert served.ask("GET", f"/v1/models/{NAME}")[1]["model_version_status"][0]["version"] == "2"
    assert served.predict({"instances": images.tolist()}, "/versions/1")[0] == 404
