"""Names, and texts of people, as Markdown that shows just them and stays where it is put."""

import re

from layerflow.cards.markdown import as_code, plain

#: What begins a list, a table, or makes a heading of the line above, where a line begins with it.
_MARK = re.compile(r"^(\d{0,9})([-+=:.)])(?=[\s=:-]|$)")
_MOST = 500


def one_line(content: object) -> str:
    """A name in one line of printable letters, cut to 500; not as Markdown."""
    words = _printable(str(content))
    return words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"


def shown(name: object) -> str:
    r"""A name or a reason as Markdown that shows just that, in one line, wherever it stands.

    Example:
        >>> print(shown("--- <script>|"))
        \--- \<script\>\|
    """
    return _escaped(one_line(name))


def code(name: object) -> str:
    """A digest, a file or a setting as Markdown that shows it as code."""
    return as_code(one_line(name))


def text(content: str) -> str:
    """What a person wrote, with its paragraphs, and its lines that begin with ``- `` as a list."""
    lines = list[str]()
    for line in map(_printable, content.splitlines()):
        is_item = line.startswith("- ")
        if is_item and lines and lines[-1] and not lines[-1].startswith("- "):
            lines.append("")  # a list begins after an empty line
        lines.append(f"- {_escaped(line[2:])}" if is_item else _escaped(line))
    return "\n".join(lines).strip("\n")


def _escaped(line: str) -> str:
    return _MARK.sub(r"\1\\\2", plain(line).replace("$", r"\$"))


def _printable(line: str) -> str:
    """The words of a line without letters that nobody sees, such as those that turn the direction of writing."""
    return "".join(letter for letter in " ".join(line.split()) if letter.isprintable() or letter == "\u200d")
