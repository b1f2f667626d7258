"""The reference pages of the site, from the code itself: settings, commands, and what can be imported.

Settings are those of the JSON schema that the Prefect UI shows. Cyclopts describes the commands. griffe reads the
modules when the site is built, and imports none of them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cli.aliases import alias
from cli.commands import app
from cli.data_commands import data
from cli.models_commands import models
from layerflow.config import RetrainConfig
from layerflow.settings.gc import GcConfig

#: Modules with a page of their own, of which one that does not exist has none.
MODULES = ("layerflow.config", "layerflow.records", "layerflow.extensions", "layerflow.testing")
#: Those whose classes are fields above all, which have no docstrings.
_WITH_FIELDS = dict.fromkeys(
    ("layerflow.config", "layerflow.records"),
    '    options: {show_if_no_docstring: true, filters: ["!^_", "!^model_config$"]}',
)
_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}


def pages(root: Path) -> dict[str, str]:
    """The pages by their names; ``root`` is the folder of the project."""
    found = {"configuration": configuration(), "cli": commands(), "layers": _layers(root)}
    for module in MODULES:
        if (root / module.replace(".", "/")).with_suffix(".py").exists():
            found[module] = f"# {module}\n\n::: {module}\n{_WITH_FIELDS.get(module, '')}\n"
    return {f"reference/{name}.md": text for name, text in found.items()}


def settings(model: type[BaseModel] = RetrainConfig, prefix: str = "") -> Iterator[str]:
    """The names of the settings of a run, such as ``data.name``; the page of the configuration has a place for each."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def configuration() -> str:
    """Every field of a run's settings and of a collection's: its type, its default, its bounds, what it does."""
    lines = [
        "# Configuration",
        "Every field is a flag of [`layerflow retrain`](cli.md#layerflow-retrain), such as `--training.epochs 20`, an "
        "entry of the YAML file for `--config`, and a field of the form in the Prefect UI. "
        "[Data and flags](../data.md#flags-and-yaml-files) shows all three. `layerflow sweep` takes the same settings, "
        "and [a space](../sweeps.md) over them.",
        *_fields(RetrainConfig, ""),
        "## gc",
        "What [`layerflow gc`](cli.md#layerflow-gc) keeps, beside what the published models need. The deployment `gc` "
        "has these fields under `config`. [Operations](../operations.md#collecting-garbage) explains them.",
        *_fields(GcConfig, "gc."),
    ]
    return "\n\n".join(lines) + "\n"


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    schema = model.model_json_schema()
    return _described(schema, schema.get("$defs", {}), prefix)


def _described(schema: dict[str, Any], known: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in schema["properties"].items():
        if "$ref" in field:
            below = known[field["$ref"].rpartition("/")[2]]
            if not prefix:
                yield f"## {name}"
                yield below["description"]
            yield from _described(below, known, f"{prefix}{name}.")
        else:
            yield f"### `{prefix}{name}` {{ #{prefix}{name} }}"
            yield f"{' · '.join(_facts(field))}\n{{ .facts }}"
            yield field["description"]


def _facts(field: dict[str, Any]) -> Iterator[str]:
    """The type of a field, its default, and the bounds that its description does not say."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    yield " or ".join(map(_kind, kinds))
    if field["default"] is not None:
        yield f"default `{json.dumps(field['default']).strip(chr(34))}`"
    for kind in kinds:
        if most := kind.get("maxLength", kind.get("maxItems")):
            yield f"at most {most:,} {'items' if kind['type'] == 'array' else 'characters'}"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        items = schema["items"]
        return f"list of {' or '.join(map(_kind, items.get('anyOf', [items])))}"
    return "path" if schema.get("format") == "path" else _KINDS.get(schema["type"], schema["type"])


def commands() -> str:
    """Every command with its flags; the settings of a run have a page of their own."""
    for part in (alias, data, models):
        part.default_parameter = app.default_parameter  # the generator does not look at the command above
    text = app.generate_docs(heading_level=1)
    text = re.sub(r"^# layerflow$", "# Command line", text, flags=re.MULTILINE)
    text = re.sub(r"^## Table of Contents\n.*?(?=^\*\*Commands\*\*)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(
        r"^(#+) (layerflow .*)$", lambda found: f"{found[0]} {{ #{_anchor(found[2])} }}", text, flags=re.MULTILINE
    )
    groups = "|".join(name.capitalize() for name in RetrainConfig.model_fields)
    text = re.sub(rf"^\*\*({groups})\*\*:\n\n(\* .*\n)+\n?", "<settings>", text, flags=re.MULTILINE)
    return re.sub(r"(<settings>)+", "**All settings**: see [Configuration](configuration.md).\n\n", text)


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower())


def _layers(root: Path) -> str:
    """The classes of the package, and the functions that it exports."""
    exported = re.findall(r"^    \"(\w+)\",$", (root / "layers" / "__init__.py").read_text(), re.MULTILINE)
    text = "# layers\n\nKeras layers. [Your own layers](../custom-layers.md) shows how to write one.\n"
    options = "    options: {show_root_heading: true, show_root_toc_entry: true, show_source: true}"
    for file in sorted((root / "layers").glob("*.py")):
        for kind, name in re.findall(r"^(class|def) (\w+)", file.read_text(), re.MULTILINE):
            if kind == "class" or name in exported:
                text += f"\n::: layers.{file.stem}.{name}\n{options}\n"
    return text
