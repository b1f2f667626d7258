"""YAML that a user gives: a mapping of plain values, without the parts of YAML that surprise or hurt."""

from pathlib import Path
from typing import Any

import yaml

from layerflow.errors import ConfigError, printed, shown

#: A file that sets every field has 5 kB.
_MOST_BYTES = 2**16
#: A field is on the second level, an option of one on the fourth.
_MOST_LEVELS = 16
_TOO_DEEP = f"at most {_MOST_LEVELS} levels of lists and mappings"
#: Characters of one number: ``int`` refuses 4,300 digits and takes any number of hexadecimal ones.
_MOST_DIGITS = 100
#: YAML 1.1 makes dates of `2020-12-31`, and merges mappings at `<<`: nothing here takes either.
_NOT_RESOLVED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
_STANDARD_TAG = "tag:yaml.org,2002:"


def read(flag: str, file: Path, form: str) -> dict[str, Any]:
    """The mapping in ``file``, which ``flag`` names; ``form`` is an example of one.

    Raises:
        ConfigError: If the file can't be read, or ``parse`` refuses it.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # of a path with a null character
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{flag} must name a YAML file that can be read. Received: {printed(str(file))} ({why})."
        ) from error
    return parse(printed(str(file)), content, form)


def parse(name: str, content: bytes, form: str) -> dict[str, Any]:
    """The mapping in ``content``; empty if nothing is in it.

    Raises:
        ConfigError: In one line, if it is not YAML, not a mapping with text as names, names something twice, or is
            larger or deeper than any config; or if it has anchors, aliases or tags.
    """
    if len(content) > _MOST_BYTES:
        raise ConfigError(
            f"{name} must have at most {_MOST_BYTES:,} bytes. It has more; remove everything but settings."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} must be text in UTF-8. It is not, from byte {error.start:,} on.") from error
    try:
        found = yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name} must be YAML with plain values: {_reason(error)}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{name} must hold a mapping such as `{form}`. Received: {shown(found)}")
    return found


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which in addition refuses while it reads, before anything is expanded or lost."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own form)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Refuse early what `compose_node` would refuse: the scanner runs ahead, at a cost of the square."""
        if self.flow_level == _MOST_LEVELS:
            raise _refused(self.get_mark(), _TOO_DEEP)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refused(event.start_mark, f"no aliases (*{event.anchor}); write the value out")
        if event.anchor:
            raise _refused(event.start_mark, f"no anchors (&{event.anchor}); write the value out where it is used")
        if event.tag:
            tag = event.tag.replace(_STANDARD_TAG, "!!", 1)
            raise _refused(event.start_mark, f"no tags ({tag}); write the value alone")
        if self._level == _MOST_LEVELS:
            raise _refused(event.start_mark, _TOO_DEEP)
        self._level += 1
        node: Any = super().compose_node(parent, index)
        self._level -= 1
        if node.tag.endswith((":int", ":float")) and len(node.value) > _MOST_DIGITS:
            raise _refused(event.start_mark, f"a number of at most {_MOST_DIGITS} characters; put text in quotes")
        if isinstance(node, yaml.MappingNode):
            _require_names(node)
        return node


def _require_names(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if key.tag != f"{_STANDARD_TAG}str":
            raise _refused(key.start_mark, "a name must be text; put a number or a word such as yes in quotes")
        if key.value in seen:
            raise _refused(key.start_mark, f"each name once, and not {shown(key.value)} again; remove one of the two")
        seen.add(key.value)


def _refused(mark: Any, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=mark)


def _reason(error: Exception) -> str:
    """What is wrong and where, as one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), "")
    return f"{f'line {mark.line + 1}: ' if mark else ''}{printed(' '.join(problem.split()))}"
