"""Which network a saved file holds, whenever and wherever it was saved."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from layerflow import user_code


def digest_of(name: str, file: Path) -> str:
    """SHA-256 of what a saved network is: its settings and weights, and where it is a user's, the code the file lacks.

    The file itself also records when it was saved and what Keras called the layers, so its bytes differ each time.
    """
    digest = hashlib.sha256((user_code.package_digest(name) if user_code.is_own(name) else name).encode())
    with zipfile.ZipFile(file) as archive:
        settings = json.loads(archive.read("config.json"))
        weights = io.BytesIO(archive.read("model.weights.h5"))
    digest.update(json.dumps(_without_labels(settings), sort_keys=True).encode())
    with h5py.File(weights) as tree:
        arrays: dict[str, Any] = {}
        tree.visititems(lambda path, node: arrays.update({path: node[()]}) if isinstance(node, h5py.Dataset) else None)
    for path, array in sorted(arrays.items()):
        digest.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _without_labels(settings: Any) -> Any:
    """A Keras config whose layers are numbered in order, and that names no address in memory.

    Keras counts names up in a process, and refers by them to the layers that another one follows.
    """
    numbers: dict[str, str] = {}

    def note(value: Any) -> None:
        if isinstance(value, dict):
            # The name of a policy is what it is: float32.
            if isinstance(value.get("config"), dict) and not str(value.get("class_name")).endswith("DTypePolicy"):
                numbers.setdefault(str(value["config"].get("name")), f"#{len(numbers)}")
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            note(item)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "shared_object_id"}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    note(settings)
    return plain(settings)
