"""How a version came about, as a statement of in-toto with the provenance of SLSA, of what its receipt knows.

https://slsa.dev/spec/v1.0/provenance
"""

import json
from collections.abc import Iterable
from typing import Any

#: What the settings in ``externalParameters`` mean, and who followed them.
BUILD_TYPE, BUILDER = "urn:layerflow:retrain:v1", "urn:layerflow:retrain"


def statement(receipt: dict[str, Any], files: dict[str, str], sbom: bytes | None) -> bytes:
    """The provenance of a version, as JSON.

    Args:
        receipt: Of the version.
        files: SHA-256 of the files that it is about, by path.
        sbom: The packages of the environment that made the model, where they are known.

    Example:
        >>> made = statement(receipt, {"saved_model.pb": "9f86…"}, None)
        >>> json.loads(made)["subject"]
        [{'name': 'saved_model.pb', 'digest': {'sha256': '9f86…'}}]
    """
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"config": receipt.get("config", {})},
                "resolvedDependencies": [*_inputs(receipt), *_packages(sbom)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": receipt.get("versions", {})},
                "metadata": {"invocationId": receipt.get("flow_run", ""), "finishedOn": receipt["created"]},
            },
        },
    }
    return json.dumps(content, indent=2).encode()


def _inputs(receipt: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The dataset, the code, and the weights that the training started from, by the digests in the receipt."""
    data, weights = receipt["data"], receipt.get("model", {}).get("weights")
    weights = weights if isinstance(weights, dict) else {}
    for name, digest in (
        (f"dataset {data['name']}", data["digest"]),
        ("code of the training", receipt.get("code")),
        ("code of the export", receipt["export"].get("code")),
        (f"weights {weights.get('source', '')}", weights.get("sha256")),
    ):
        if digest:
            yield {"name": name, "digest": {"sha256": digest}}


def _packages(sbom: bytes | None) -> Iterable[dict[str, Any]]:
    for each in json.loads(sbom)["components"] if sbom else ():
        if "purl" in each:
            yield {"name": each["name"], "uri": each["purl"]}
