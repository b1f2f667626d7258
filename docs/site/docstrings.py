"""The headings of the project's docstrings, as griffe reads them."""

import re
import textwrap
from typing import Any

from griffe import Extension, Object

#: What griffe calls a list of arguments, and a list of examples.
_HEADINGS = {"Call arguments:": "Other arguments: Call arguments:", "Example:": "Examples:"}
#: Of a class, prose: a layer returns nothing by itself.
_PROSE = re.compile(r"^(Returns|References):\n((?: {4}.*\n?)+)", re.MULTILINE)


class Headings(Extension):
    """Make sections and paragraphs of the headings that griffe does not know."""

    def on_object(self, *, obj: Object, **others: Any) -> None:
        if not obj.docstring:
            return
        text = obj.docstring.value
        for heading, known in _HEADINGS.items():
            text = re.sub(rf"^{heading}$", known, text, flags=re.MULTILINE)
        if obj.is_class:
            text = _PROSE.sub(lambda found: f"**{found[1]}:**\n\n{textwrap.dedent(found[2])}", text)
        obj.docstring.value = text
