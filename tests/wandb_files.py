"""Reading what Weights & Biases has written of an offline run."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Bytes of a block in a log of LevelDB's format, and of what is before each part of a record.
_BLOCK, _HEAD = 32 * 1024, 7


def records(folder: Path) -> Iterator[Any]:
    """What W&B has written of a run: records of its protocol, in a log of LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    content, at, parts = file.read_bytes(), _HEAD, b""  # after W&B's own head
    while at + _HEAD <= len(content):
        if _BLOCK - at % _BLOCK < _HEAD:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        body = content[at + _HEAD : at + _HEAD + length]
        assert int.from_bytes(content[at : at + 4], "little") == zlib.crc32(body, zlib.crc32(bytes([kind])))
        parts, at = parts + body, at + _HEAD + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def offline_runs(runs: Path) -> list[Path]:
    return sorted(runs.glob("offline-run-*"))


def history(folder: Path) -> dict[int, dict[str, Any]]:
    """The rows of a run by step; a step that is there twice fails."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records(folder):
        if record.HasField("history"):
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            assert row["_step"] not in rows
            rows[row["_step"]] = row
    return rows


def settings(folder: Path) -> dict[str, Any]:
    (run,) = [record.run for record in records(folder) if record.HasField("run")][:1]
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for record in records(folder):
        for item in record.summary.update if record.HasField("summary") else ():
            values["".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return values
