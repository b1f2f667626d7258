"""Whether `layerflow try` loses a request while a new version takes over: every answer is compared with both versions'.

Usage: ``python benchmarks/switching.py [REQUESTS]``. Several clients ask for the class of an image file, each over one
connection. After a third of the requests, a run publishes another model of the digits, and the server must follow.
"""

import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

CLIENTS = 8
LAYERFLOW = Path(sys.executable).with_name("layerflow")
PATH = "/v1/models/mlp-digits:predict"
TRAINING = ["--quiet", "--training.epochs", "5", "--training.compile", "graph"]


def body() -> bytes:
    content = io.BytesIO()
    Image.fromarray((load_digits().images[0] * 255 / 16).round().astype(np.uint8)).save(content, "PNG")
    file = {"b64": base64.b64encode(content.getvalue()).decode()}
    return json.dumps({"signature_name": "image_bytes", "instances": [file]}).encode()


def ask(connection: http.client.HTTPConnection, asked: bytes) -> tuple[int, Any]:
    connection.request("POST", PATH, asked)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def answer_of(port: int) -> str:
    return str(ask(http.client.HTTPConnection("127.0.0.1", port), body())[1]["predictions"])


class Load:
    """Clients that ask until each has asked often enough, and what they got."""

    def __init__(self, port: int, requests: int) -> None:
        self.answers, self.seconds, self.errors = Counter[str](), list[float](), list[str]()
        self.follows = threading.Event()  # the new version answers
        self._port, self._requests, self._asked = port, requests, body()
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while len(self.seconds) < self._requests or not self.follows.is_set():
            began = time.perf_counter()
            try:
                status, told = ask(connection, self._asked)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(repr(error))
                connection.close()
                continue
            self.seconds.append(time.perf_counter() - began)
            self.answers[str(told["predictions"]) if status == 200 else f"{status} {told}"] += 1

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LAYERFLOW_STORE": f"{folder}/store", "PREFECT_HOME": f"{folder}/prefect"}
        retrain = [LAYERFLOW, "retrain", *TRAINING]
        subprocess.run(retrain, env=environment, check=True, stdout=subprocess.DEVNULL)
        server = subprocess.Popen([LAYERFLOW, "try", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            found = re.search(r":(\d+)/", server.stdout.readline())
            assert found
            port = int(found[1])
            expected = [answer_of(port)]
            load, began = Load(port, requests), time.perf_counter()
            load.start()
            while len(load.seconds) < requests // 3:
                time.sleep(0.1)
            again = [*retrain, "--training.seed", "1", "--gate.force", "another version"]
            subprocess.run(again, env=environment, check=True, stdout=subprocess.DEVNULL)
            while answer_of(port) == expected[0]:
                time.sleep(0.1)
            expected.append(answer_of(port))
            load.follows.set()
            load.join()
        finally:
            server.terminate()
            server.wait()
    seconds, milliseconds = time.perf_counter() - began, 1000 * np.array(load.seconds)
    wrong = {answer: count for answer, count in load.answers.items() if answer not in expected}
    print(
        f"{len(load.seconds):,} requests from {CLIENTS} clients: {len(load.seconds) / seconds:,.0f} a second, median "
        f"{np.median(milliseconds):.1f} ms, 99 % within {np.percentile(milliseconds, 99):.1f} ms"
    )
    print(f"answered by version 1: {load.answers[expected[0]]:,}, by version 2: {load.answers[expected[1]]:,}")
    print(f"failed: {len(load.errors) + sum(wrong.values())}", *[*load.errors, *wrong][:5], sep="\n  ")
    sys.exit(1 if load.errors or wrong else 0)


if __name__ == "__main__":
    main()
