"""What the commands on versions of data print."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.output import console
from layerflow.collection.liveness import users_of
from layerflow.data.prepared import difference, prepared, prepared_as, write_folder

#: Letters of a digest that are shown.
_SHOWN = 12


def list_prepared(as_json: bool) -> None:
    """The versions, the last used first."""
    users = users_of()
    found = [
        {
            "name": data.name,
            "version": data.version,
            "digest": data.digest,
            "counts": data.counts,
            "classes": len(data.classes),
            "image_shape": data.image_shape,
            "used": datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
            "models": users.get(data.folder, []),
            "folder": data.folder,
        }
        for data, used in prepared()
    ]
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("no data are prepared in this store yet; run layerflow data check")
    else:
        console().print(_table(found))


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("digest", "data", "images", "classes", "last used", "used by")
    for each in found:
        counts = ", ".join(f"{count:,} {split}" for split, count in each["counts"].items())
        table.add_row(
            each["digest"][:_SHOWN],
            each["name"],
            counts,
            f"{each['classes']:,}",
            each["used"][:16].replace("T", " "),
            ", ".join(each["models"]) or "-",
        )
    return table


def show_difference(before: str, after: str, as_json: bool) -> None:
    """What two versions have differently."""
    found = difference(prepared_as(before), prepared_as(after))
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    table = Table("class", before, after, "added", "removed")
    for name, (was, now) in found.counts.items():
        added, removed = (of.get(name, 0) for of in (found.added, found.removed))
        table.add_row(name, f"{was:,}", f"{now:,}", f"{added:,}", f"{removed:,}")
    console().print(table)
    for what, changes in (("relabelled", found.relabelled), ("moved", found.moved)):
        for change, count in changes.items():
            print(f"{count:,} {what}: {change}")
    print(f"{sum(found.added.values()):,} images added, {sum(found.removed.values()):,} removed")


def export_version(version: str, folder: Path) -> None:
    """Write a version as a folder of images."""
    folder = folder.expanduser().absolute()
    data = prepared_as(version)
    write_folder(data, folder)
    print(f"{sum(data.counts.values()):,} images of {data.name} {data.digest[:_SHOWN]} are in {folder}")
