"""The commands on the store: what is in it, and collecting what no model needs."""

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cli.models_commands import Json
from layerflow.settings.gc import GcConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerflow.collection.outcomes import Bytes, Collected

_Settings = Annotated[GcConfig, Parameter(name="*")]


def gc(
    *,
    settings: _Settings = GcConfig(),  # noqa: B008  (frozen)
    dry_run: bool = False,
    as_json: Json = False,
) -> None:
    """Remove from the store what no model needs, no run uses, and nobody used for long. Runs can go on meanwhile.

    Parameters
    ----------
    dry_run
        Only say what would go.
    as_json
        Print one JSON object.
    """
    from layerflow.collection.card import summary

    done = _collected(settings, dry_run)
    if as_json:
        _print_json(done)
    else:
        _show(done, "folder", [each for each in done.kinds if each.removed])
        print(summary(done))


def store(
    *,
    settings: _Settings = GcConfig(),  # noqa: B008  (frozen)
    as_json: Json = False,
) -> None:
    """Show what is in the store, by folder, model and last use, and what `layerflow gc` would free.

    Parameters
    ----------
    as_json
        Print one JSON object.
    """
    from layerflow.collection.card import summary

    found = _collected(settings, dry_run=True)
    if as_json:
        _print_json(found)
        return
    for head, parts in (("folder", found.kinds), ("model", found.models), ("last used", found.ages)):
        _show(found, head, parts)
    print(summary(found))


def _collected(settings: GcConfig, dry_run: bool) -> "Collected":
    from layerflow import store as place
    from layerflow.collection.collect import collect

    place.ensure_writable()
    return collect(settings, dry_run)


def _show(done: "Collected", head: str, parts: "Sequence[Bytes]") -> None:
    from rich.table import Table

    from cli.output import console
    from layerflow.collection.card import cells, heads

    if parts:
        shown = Table(head)
        for each in heads(done):
            shown.add_column(each, justify="right")
        for part in parts:
            shown.add_row(*cells(part))
        console().print(shown)


def _print_json(done: "Collected") -> None:
    sums = {"bytes": done.bytes, "removed": done.removed, "freed": done.freed}
    print(json.dumps({**sums, **done.model_dump(mode="json")}, indent=2))
