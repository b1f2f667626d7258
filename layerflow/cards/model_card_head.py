"""The head of a model card: what the Hugging Face Hub reads of a model, as YAML.

The keys are those of ``huggingface_hub.ModelCardData``. https://huggingface.co/docs/hub/model-cards describes them.
"""

import logging
import re
from typing import Any

import yaml

from layerflow.cards.model_card_text import one_line

log = logging.getLogger(__name__)

#: What the Hub takes as ``license``, of the licenses that models have. Any other one is ``other``, with its name.
_LICENSE = (
    r"apache-2\.0|mit|isc|zlib|unlicense|openrail|bsd(-[23]-clause)?|[al]?gpl-3\.0|gpl-2\.0|lgpl-2\.1|mpl-2\.0|epl-2\.0|"
    r"eupl-1\.[12]|cc0-1\.0|cc-by(-nc)?(-nd|-sa)?-4\.0|odc-by|odbl|pddl|cdla-(permissive-2\.0|sharing-1\.0)"
)
_TAGS = ("image-classification", "tensorflow", "saved-model", "layerflow")
#: The Hub's tags for other formats.
_FORMATS = {"litert": "tflite", "litert_int8": "tflite", "onnx": "onnx"}
#: What can be the name of a dataset on the Hub.
_DATASET = r"[\w.-]{1,96}(/[\w.-]{1,96})?"
#: Words that YAML of any version reads as text without quotes.
_BARE = r"[A-Za-z][A-Za-z_-]*"


def head(receipt: dict[str, Any]) -> str:
    """YAML between two lines of dashes. What the receipt does not tell is left out."""
    told: dict[str, Any] = {
        "library_name": "tensorflow",  # and not keras: its loader on the Hub reads `.keras` files, and no SavedModel
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS],
    }
    try:
        told |= _of(receipt)
    except Exception as error:  # whatever it is: what people look at must not keep a model from service
        log.debug("the model card's head can't have all of its parts: %s", error)
    return f"---\n{yaml.dump(told, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)}---"


def _of(receipt: dict[str, Any]) -> dict[str, Any]:
    dataset, proofs = one_line(receipt["data"]["name"]), receipt.get("formats", {}).get("formats", [])
    formats = {_FORMATS[each["name"]] for each in proofs if each["reason"] is None and each["name"] in _FORMATS}
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            "name": dataset,
            "type": dataset,
            "split": "test",
            "revision": one_line(receipt["data"]["digest"]),
        },
        "metrics": _metrics(receipt["evaluation"]),
    }
    return {
        **_license(receipt.get("card", {}).get("license")),
        "tags": [*_TAGS, *sorted(formats)],
        **({"datasets": [dataset]} if re.fullmatch(_DATASET, dataset, re.ASCII) else {}),
        "metrics": ["accuracy", "recall"],
        "model-index": [{"name": one_line(receipt["name"]), "results": [result]}],
    }


def _license(given: Any) -> dict[str, str]:
    wanted = one_line(given or "")
    if not wanted:
        return {}
    known = re.fullmatch(_LICENSE, wanted.lower())
    return {"license": known[0]} if known else {"license": "other", "license_name": wanted}


def _metrics(found: Any) -> list[dict[str, Any]]:
    tested = [each for each in found["per_class"] if each["examples"]]
    worst = min(tested, key=lambda each: float(each["recall"]))
    balanced = sum(float(each["recall"]) for each in tested) / len(tested)
    return [
        {"type": "accuracy", "name": "Accuracy", "value": round(float(found["accuracy"]), 4)},
        {"type": "recall", "name": "Mean recall of the classes", "value": round(balanced, 4)},
        {
            "type": "recall",
            "name": f"Recall of the worst class, {one_line(worst['name'])}",
            "value": round(float(worst["recall"]), 4),
        },
    ]


class _Dumper(yaml.SafeDumper):
    """Puts every text into quotes that a reader of another version of YAML could take for something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if re.fullmatch(_BARE, text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
