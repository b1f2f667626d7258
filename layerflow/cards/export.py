"""An exported model as people look at it: what it takes and gives, its files, what was proved of it."""

import json
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.cards.markdown import plain, short, table, write
from layerflow.checksums import EXTRA
from layerflow.records import ExportRef, Verification


def write_card(verification: Verification, export: ExportRef, folder: Path) -> None:
    """Write ``card.md``."""
    model = store.path(export.saved_model)
    contract = json.loads((model / EXTRA / "contract.json").read_text())
    sizes = {name: (model / name).stat().st_size for name in export.files}
    parts = [
        f"# Export: {plain(contract['model'])} on {plain(contract['dataset'])}",
        f"A SavedModel of {sum(sizes.values()):,} bytes in {len(sizes)} files, digest `{export.digest}`. A fresh "
        f"process without any project code loaded it with TensorFlow {verification.tensorflow} in "
        f"{verification.load_seconds:.2f} s. One image takes **{verification.latency_p50_ms:.2f} ms**, 99 % within "
        f"{verification.latency_p99_ms:.2f} ms.",
        "## Verification",
        table(("check", "result"), [(each.name.replace("_", " "), each.detail) for each in verification.checks]),
        "## Signature `serving_default`",
        _signature(contract),
        "## Files",
        table(
            ("file", "bytes", "SHA-256"),
            [(f"`{name}`", f"{sizes[name]:,}", f"`{short(digest)}`") for name, digest in export.files.items()],
        ),
    ]
    write(folder, parts)


def _signature(contract: dict[str, Any]) -> str:
    shape, classes = ", ".join(map(str, contract["image_shape"])), len(contract["classes"])
    rows = [
        ("input", "`images`", "uint8", f"(batch, {shape})"),
        ("output", "`probabilities`", "float32", f"(batch, {classes})"),
        ("output", "`class_id`", "int64", "(batch,)"),
    ]
    notes = []
    if "temperature" in contract:
        notes.append(f"The logits are divided by {contract['temperature']:g} before the softmax.")
    if "threshold" in contract:
        rows.append(("output", "`accepted`", "bool", "(batch,)"))
        notes.append(f"`accepted` is true if the largest probability is at least {contract['threshold']}.")
    return "\n\n".join([table(("", "name", "type", "shape"), rows), *notes, *_other_signatures(contract)])


def _other_signatures(contract: dict[str, Any]) -> list[str]:
    """What the model can be asked besides raw images; nothing of one that an earlier layerflow exported."""
    told = []
    if files := contract.get("image_bytes"):
        told.append(
            f"Signature `image_bytes` takes encoded images and gives the same, and `label`. It decodes "
            f"{files['decoded']}. It refuses {files['refused']}."
        )
    if "pixels" in contract:
        told.append("Signature `pixels` gives what the model makes of such files.")
    if "embedding" in contract:
        told.append(f"Signature `embedding` takes `images` and gives {contract['embedding']:,} features of each.")
    return told
