"""The card of `layerflow predict --evaluate`: how many images of a folder a published model recognizes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from layerflow.cards.confusion import confusion_parts
from layerflow.cards.markdown import plain, table


def scores_card(model: str, folder: str, scores: Mapping[str, Any]) -> str:
    """Markdown of what was found.

    Args:
        model: Name and version.
        folder: The folder of ``<class>/`` folders.
        scores: ``Scores.as_json()``, and ``broken``, the number of files that have no answer.
    """
    counts, names = np.array(scores["confusion"]), scores["classes"]
    wrong, broken = scores["images"] - counts.trace(), scores["broken"]
    images = dict(zip(names, counts.sum(axis=1).tolist(), strict=True))
    recalls = sorted(scores["recall"].items(), key=lambda pair: pair[1])
    rows = [(plain(name), f"{images[name]:,}", f"{recall:.4f}") for name, recall in recalls]
    parts = [
        f"# {plain(model)} on {plain(folder)}",
        f"**Accuracy {scores['accuracy']:.4f}** (95 % interval {scores['accuracy_low']:.4f} to "
        f"{scores['accuracy_high']:.4f}): {wrong:,} mistakes in {scores['images']:,} images.",
        f"{broken:,} files have no answer, and are not counted." if broken else "",
        "## Confusion matrix",
        *confusion_parts(names, counts),
        "## Classes",
        table(("class", "images", "recall"), rows),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
