"""An S3 server on loopback, and a proxy before it that fails as endpoints fail."""

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple

from layerflow.remote.bucket import Bucket, in_force
from tests.servers import free_port

BUCKET = "lake"
#: What a server needs and never checks. The tests look for both where no secret may be.
KEY_ID, SECRET = "AKIATESTSONLY", "tests-only-secret"
#: What the fixture `enter` gives: it puts a store into force, by its name.
Enter = Callable[[str], Path]
Kind = Literal["503", "403", "reset", "lost answer", "slow", "hang"]


class Fault(NamedTuple):
    """How some requests fail.

    Attributes:
        kind: An answer; ``reset``: the connection ends in the middle of the upload; ``lost answer``: the request is
            carried out and never answered; ``slow``: the answer is late; ``hang``: it never comes.
        requests: What the method and the path of the requests match, such as ``PUT .*/record.json``.
        times: How many of them fail; all, if negative.
    """

    kind: Kind
    requests: str = ".*"
    times: int = -1


class Proxy:
    """Passes requests on to a server, but for those that a test lets fail.

    Attributes:
        requests: Those that came, such as ``GET /lake/prefix/a``.
    """

    def __init__(self, port: int) -> None:
        self.requests, self.faults, self._port = list[str](), list[Fault](), port
        self._guard, self._writing, self.ended = threading.Lock(), threading.Lock(), threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the caller gave up
                    self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

            def _pass(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _pass  # noqa: N815  (the names that http.server calls)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, kind: Kind, requests: str = ".*", times: int = -1) -> None:
        """Let requests fail from now on."""
        with self._guard:
            self.faults.append(Fault(kind, requests, times))

    def heal(self) -> None:
        """Let no request fail any more."""
        with self._guard:
            self.faults.clear()

    def close(self) -> None:
        """Stop listening: the endpoint has vanished."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request: as the server does, or by a fault."""
        request = f"{handler.command} {handler.path}"
        kind = self._fault_of(request)
        length = int(handler.headers.get("content-length") or 0)
        if kind == "reset":
            handler.rfile.read(length // 2)
            self._break(handler)
            return
        body = handler.rfile.read(length)
        if kind in ("503", "403"):
            self._refuse(handler, int(kind))
            return
        if kind == "slow":
            self.ended.wait(0.1)
        if kind == "hang":
            self.ended.wait(60)
            self._break(handler)
            return
        status, headers, content = self._forward(handler, body)
        if kind == "lost answer":
            self._break(handler)
            return
        handler.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                handler.send_header(name, value)
        stated = {name.lower(): value for name, value in headers}.get("content-length")
        handler.send_header("content-length", stated if handler.command == "HEAD" and stated else str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        # The server looks at a condition and writes in two steps; a real one does in one.
        conditional = {"if-match", "if-none-match"} & {name.lower() for name in handler.headers}
        if handler.command == "PUT" and conditional:
            with self._writing:
                return self._sent(handler, body)
        return self._sent(handler, body)

    def _sent(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _fault_of(self, request: str) -> str:
        with self._guard:
            self.requests.append(request)
            for number, fault in enumerate(self.faults):
                if fault.times and re.fullmatch(fault.requests, request):
                    self.faults[number] = fault._replace(times=fault.times - 1)
                    return fault.kind
        return ""

    @staticmethod
    def _break(handler: BaseHTTPRequestHandler) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, for no time: the other end is reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.connection.close()

    @staticmethod
    def _refuse(handler: BaseHTTPRequestHandler, status: int) -> None:
        """As servers do: the answer to a wrong signature repeats the ID of the key, and what was signed."""
        code = "SlowDown" if status == 503 else "SignatureDoesNotMatch"
        signed = handler.headers.get("authorization", "")
        text = (
            f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><Got>{signed}</Got></Error>".encode()
        )
        handler.send_response(status)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text)


@contextmanager
def s3_server() -> Iterator[int]:
    """A server with an empty bucket, in a process of its own; its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        while True:
            try:
                urllib.request.urlopen(request, timeout=10).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def lake() -> Bucket:
    """The bucket in force."""
    found = in_force()
    assert found
    return found


def environment_of(url: str) -> dict[str, str]:
    """What the SDKs of S3 read from the environment."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
