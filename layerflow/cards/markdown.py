"""What cards are written in: Markdown that shows just what it is given."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Letters of a value in a cell: a list of a thousand classes would be longer than all else.
_MOST = 80


def write(folder: Path, parts: Iterable[str]) -> None:
    """Write ``card.md``, a paragraph for each part."""
    (folder / "card.md").write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def plain(text: str) -> str:
    """A name or a reason as Markdown that shows just that, in one line, wherever it stands."""
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", " ".join(text.split()))


def as_code(text: str) -> str:
    """A command as Markdown that shows just that."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", str(value)).replace("\n", " ")  # what is ``plain`` has its backslash


def short(value: object, most: int = _MOST) -> str:
    """A value as it stands in a cell: of a float four digits, of a digest and of what is long its beginning."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if re.fullmatch("[0-9a-f]{32,}", text):
        return f"{text[:12]}…"
    if len(text) <= most:
        return text
    size = f"{len(value):,} in all" if isinstance(value, list | tuple) else f"({len(text):,} characters)"
    return f"{text[:most]}… {size}"
