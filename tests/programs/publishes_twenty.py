"""Publish an export twenty times, once it is told to begin. Usage: ``… EXPORT RECEIPT``, as JSON."""

import json
import sys

from layerflow import store
from layerflow.records import ExportRef
from layerflow.registry import publishing

export = ExportRef.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    with store.locked("models-busy"):
        version = publishing.next_version("busy")
        receipt = {**json.loads(sys.argv[2]), "version": version}
        publishing.publish("busy", version, store.path(export.saved_model), receipt)
    print(version, flush=True)
