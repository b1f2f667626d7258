"""The model card of a version: ``README.md``, in the form of the Hugging Face Hub, drawn from its receipt alone.

A receipt is data from disk: it may be of an earlier layerflow, and the names in it may be anything. A section that it
does not tell enough for is one sentence, and nothing in it can end the head, a table or a paragraph.
"""

import logging
from collections.abc import Callable
from typing import Any

from layerflow.card_file import CardFile
from layerflow.cards.markdown import as_code, short, table
from layerflow.cards.model_card_head import head
from layerflow.cards.model_card_text import code, shown, text
from layerflow.config import RetrainConfig
from layerflow.evaluation.statistics import p_text
from layerflow.outcomes import Comparison, FormatsProof
from layerflow.records import Change, DataReport, DatasetRef, Evaluation, Verification

log = logging.getLogger(__name__)

#: Rows of a table: what a reader looks at, and what the Hub renders at once. The receipt has all.
_MOST = 100
_UNTOLD = "The receipt of this version does not tell."
#: The fields that a person fills in, in the order of the card, and how each is written.
_OF_PEOPLE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "intended_use": ("Intended use", text),
    "out_of_scope_use": ("Out-of-scope use", text),
    "limitations": ("Limitations", text),
    "ethical_considerations": ("Ethical considerations", text),
    "license": ("License", shown),
    "authors": ("Authors", lambda names: "\n".join(f"- {shown(name)}" for name in names)),
    "contact": ("Contact", shown),
}


def draw(receipt: dict[str, Any]) -> str:
    """The card of the version that a receipt is of: YAML between two lines of dashes, then Markdown.

    Args:
        receipt: As ``receipt.receipt_for`` makes it, with the version and the decision.

    Example:
        >>> draw(receipt).splitlines()[:2]
        ['---', 'library_name: tensorflow']
    """
    name, version = receipt.get("name", "A model"), receipt.get("version")
    sections: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "": _introduction,
        "Use, limits, and people": _people,
        "Data": _data,
        "Figures": _figures,
        "Compared with the version before": _comparison,
        "How it was proved": _proof,
        "How to load it": _loading,
        "How to reproduce it": _reproduction,
    }
    parts = [head(receipt), f"# {shown(name)}, version {shown(version)}"]
    for title, section in sections.items():
        try:
            told = section(receipt)
        except Exception as error:  # whatever it is: what people look at must not keep a model from service
            log.debug("the model card's section %r can't be drawn: %s", title, error)
            told = [_UNTOLD]
        parts += [f"## {title}" if title else "", *told]
    return "\n\n".join(filter(None, parts)) + "\n"


def _introduction(receipt: dict[str, Any]) -> list[str]:
    data, decision = _record(DatasetRef, receipt["data"]), receipt["decision"]
    height, width, channels = data.image_shape
    trained, epochs = receipt["trained"]["model"], receipt["trained"]["epochs"]
    parts = [
        f"An image classifier. It takes images of {height} x {width} x {channels} (height, width, channels), and gives "
        f"the probabilities of {len(data.classes):,} classes. The network is {shown(trained)} with "
        f"{receipt['model']['parameters']:,} parameters, trained for {epochs:,} {'epoch' if epochs == 1 else 'epochs'} "
        f"on {shown(data.name)}. layerflow {shown(receipt['versions'].get('layerflow', '?'))} published it on "
        f"{shown(receipt['created'])}. All figures are from its receipt, `assets.extra/receipt.json`.",
    ]
    if "restored" in decision:
        before, champion = shown(decision["restored"]), shown(decision["champion"])
        parts.append(
            f"**Restored by a rollback.** The model is that of version {before}, published again in place of version "
            f"{champion}. The figures are those of version {before}."
        )
    return [*parts, f"Decision: {shown(decision['reason'])} ({code(decision['code'])})."]


def _people(receipt: dict[str, Any]) -> list[str]:
    given = CardFile.model_validate(receipt.get("card", {}))
    parts, missing = list[str](), list[str]()
    for field, (title, written) in _OF_PEOPLE.items():
        value = getattr(given, field)
        if value and (content := written(value)):
            parts += [f"### {title}", content]
        else:
            missing.append(title.lower())
    if missing:
        parts.append(f"Not filled in: {', '.join(missing)}. These fields come from `card.yaml`.")
    return parts


def _data(receipt: dict[str, Any]) -> list[str]:
    data, report = _record(DatasetRef, receipt["data"]), _record(DataReport, receipt["checked"])
    counts, splits = [("all", *(f"{count:,}" for count in data.counts.values()))], map(shown, data.counts)
    classes = [
        (shown(name), *(f"{report.profile.counts[split][number]:,}" for split in data.counts))
        for number, name in enumerate(data.classes[:_MOST])
    ]
    findings = [f"- {shown(each.text)}" for each in report.findings if each.level != "info"]
    return [
        f"{shown(data.name)} {shown(data.version)}, digest {code(data.digest)}. {data.broken:,} files were left out.",
        f"Splits: {shown(data.split_rule)}. Images: {shown(data.image_rule)}.",
        table(("images of class", *splits), [*counts, *classes]),
        _rest(len(data.classes)),
        *(["Warnings of the checks before training:", "\n".join(findings)] if findings else []),
    ]


def _figures(receipt: dict[str, Any]) -> list[str]:
    found = _record(Evaluation, receipt["evaluation"])
    worst = found.worst
    rows = [
        ("accuracy", f"{found.accuracy:.4f}", f"95 % interval {found.accuracy_low:.4f} to {found.accuracy_high:.4f}"),
        ("baseline", f"{found.baseline:.4f}", f"by always answering {shown(found.majority.name)}"),
        ("balanced accuracy", f"{found.balanced_accuracy:.4f}", "mean recall of the classes"),
        ("worst class", f"{worst.recall:.4f}", f"recall of {shown(worst.name)}, on {worst.examples:,} images"),
        ("log loss", f"{found.loss:.4f}", "in nats"),
    ]
    lowest = sorted(found.per_class, key=lambda score: score.recall) if len(found.per_class) > _MOST else None
    classes = [
        (shown(each.name), f"{each.examples:,}", f"{each.recall:.4f}", f"{each.precision:.4f}", f"{each.f1:.4f}")
        for each in (lowest or found.per_class)[:_MOST]
    ]
    return [
        f"On the {found.test_examples:,} test images, which the training did not see.",
        table(("figure", "value", ""), rows),
        f"### Classes{', lowest recall first' if lowest else ''}",
        table(("class", "test images", "recall", "precision", "F1"), classes),
        _rest(len(found.per_class)),
        *_slices(found),
        *_probabilities(found),
    ]


def _slices(found: Evaluation) -> list[str]:
    rows = [
        (
            shown(each.name),
            f"{each.examples:,}",
            f"{each.accuracy:.4f}",
            f"{each.accuracy_low:.4f} to {each.accuracy_high:.4f}",
        )
        for each in sorted(found.slices, key=lambda score: score.accuracy_high)[:_MOST]
    ]
    head = ("slice", "test images", "accuracy", "95 % interval")
    return ["### Slices", table(head, rows), _rest(len(found.slices))] if rows else []


def _probabilities(found: Evaluation) -> list[str]:
    serving, calibrated, abstention = found.serving, found.calibrated, found.abstention
    told = "The probabilities are those of the network. They were not calibrated."
    if calibrated:
        told = (
            f"The logits are divided by the temperature {serving.temperature:g}, fitted on {calibrated.images:,} "
            f"validation images. The expected calibration error on the test images is {calibrated.ece_after:.4f}; "
            f"before, it was {calibrated.ece_before:.4f}."
        )
    parts = ["### Calibration and abstention", told]
    if abstention and serving.threshold is not None:
        parts.append(
            f"An answer is accepted if its probability is at least {serving.threshold:g}. {abstention.coverage:.2%} of "
            f"the test images are accepted, and {abstention.error:.2%} of these are wrong. An image drawn like the "
            f"validation images is accepted and wrong with a probability of at most {abstention.asked:g}."
        )
    else:
        parts.append("The model answers every image. It has no threshold below which it abstains.")
    return parts


def _comparison(receipt: dict[str, Any]) -> list[str]:
    decision = receipt["decision"]
    champion = shown(decision["champion"])
    if decision["champion"] is None:
        return ["There was no live version."]
    if "restored" in decision:
        return [f"Version {champion} was live before. A rollback compares nothing."]
    if not decision.get("comparison"):
        return [f"Version {champion} was live before. The two were not compared."]
    found = Comparison.model_validate(decision["comparison"])
    ours, theirs = found.challenger, found.champion
    rows: list[tuple[str, ...]] = [("accuracy", f"{theirs.accuracy:.4f}", f"{ours.accuracy:.4f}")]
    if found.metric != "accuracy":
        rows.append((shown(found.metric), *(f"{score:.4f}" for score in found.scores)))
    rows += [
        ("right where the other is wrong", f"{found.only_champion:,}", f"{found.only_challenger:,}"),
        ("latency, 99 % within", f"{theirs.latency_p99_ms:.2f} ms", f"{ours.latency_p99_ms:.2f} ms"),
    ]
    changes = [Change.model_validate(each) for each in decision.get("changes", [])]
    changed = [(code(each.field), shown(short(each.before)), shown(short(each.after))) for each in changes[:_MOST]]
    before = f"version {found.champion_version}"
    return [
        f"On {found.images_text}: {found.difference_word} in {shown(found.metric)} {found.difference:+.4f}, 95 % "
        f"interval {found.difference_low:+.4f} to {found.difference_high:+.4f}; {shown(found.method)} "
        f"{p_text(found.p_value)}.",
        table(("", before, "this version"), rows),
        *(["What changed:", table(("setting, data or code", before, "this version"), changed)] if changed else []),
        _rest(len(changes)),
    ]


def _proof(receipt: dict[str, Any]) -> list[str]:
    found = _record(Verification, receipt["verification"])
    parts = [
        f"A fresh process without any project code loaded the model with TensorFlow {shown(found.tensorflow)} in "
        f"{found.load_seconds:.2f} s. One image takes {found.latency_p50_ms:.2f} ms, 99 % within "
        f"{found.latency_p99_ms:.2f} ms, on the machine that proved it.",
        table(("check", "result"), [(shown(each.name.replace("_", " ")), shown(each.detail)) for each in found.checks]),
    ]
    if receipt.get("formats"):
        proofs = [each for each in _record(FormatsProof, receipt["formats"]).formats if each.reason is None]
        rows = [
            (
                code(each.file),
                f"{each.size:,}",
                "" if each.test_accuracy is None else f"{each.test_accuracy:.4f}",
                "" if each.latency_p50_ms is None else f"{each.latency_p50_ms:.3f} ms",
                shown(each.runtime),
            )
            for each in proofs
        ]
        if rows:
            head = ("in assets.extra/formats", "bytes", "accuracy", "median latency", "runtime")
            parts += ["Other formats, each proved on all test images by its own runtime:", table(head, rows)]
    return parts


def _loading(receipt: dict[str, Any]) -> list[str]:
    height, width, channels = _record(DatasetRef, receipt["data"]).image_shape
    return [
        "The model is a SavedModel. It takes raw `uint8` images, and needs no code of its project. In the folder of "
        "this file:",
        "\n".join(
            [
                "```python",
                "import json",
                "",
                "import tensorflow as tf",
                "",
                'model = tf.saved_model.load(".")',
                f'images = tf.zeros((1, {height}, {width}, {channels}), "uint8")  # yours',
                'answer = model.signatures["serving_default"](images=images)',
                'classes = json.load(open("assets.extra/contract.json"))["classes"]',
                'print(classes[int(answer["class_id"][0])], float(tf.reduce_max(answer["probabilities"][0])))',
                "```",
            ]
        ),
    ]


def _reproduction(receipt: dict[str, Any]) -> list[str]:
    flags = RetrainConfig.model_validate(receipt["config"]).as_flags
    libraries = ", ".join(f"{shown(name)} {shown(number)}" for name, number in receipt["versions"].items())
    return [
        as_code(f"layerflow retrain {flags}".rstrip()),
        f"With the data of digest {code(receipt['data']['digest'])}, the code of digest "
        f"{code(receipt['code'])}, and {libraries}.",
    ]


def _record(kind: Any, content: dict[str, Any]) -> Any:
    """A part of a receipt as the record that it was; what a later layerflow added to it is left out."""
    return kind.model_validate({name: value for name, value in content.items() if name in kind.model_fields})


def _rest(count: int) -> str:
    return f"{count - _MOST:,} more are in the receipt." if count > _MOST else ""
