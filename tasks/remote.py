"""Steps and the bucket of ``LAYERFLOW_REMOTE``: what is there is not made again, and what was made is uploaded."""

from collections.abc import Iterable
from pathlib import Path

from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer

from layerflow import artifacts, store
from layerflow.records import Record
from layerflow.remote import mirror

_RESULT = "result.json"


def folder_of(step: str, key: str, kind: type[Record], anew: bool = False) -> Path:
    """Where Prefect's record of a step's result is: in the step's folder, or with the record that the bucket has."""
    target = store.folder_of(step, key)
    if artifacts.sound(target):  # a damaged one is set aside, and a record of Prefect that disagrees with ours removed
        mirror.keep(f"{step}/{key}")
    elif not anew and (found := mirror.find(f"{step}/{key}", kind)):
        record, folder = found
        _write_result(folder, record)
        return folder
    return target


def bring(values: Iterable[object]) -> list[Record]:
    """Download the artifacts of records that are in the bucket and not here, and return those records."""
    brought = []
    for value in values:
        if isinstance(value, Record) and (folder := mirror.bring(value.folder)):
            _write_result(folder, value)
            brought.append(value)
    return brought


def here(records: Iterable[Record]) -> list[Record]:
    """The records whose artifacts are here; all of them without a bucket, where one that is not is missing."""
    return [record for record in records if not mirror.is_set() or store.path(record.folder).is_dir()]


def _write_result(folder: Path, record: Record) -> None:
    """Prefect's record of a result that another machine made: it never comes from the bucket."""
    file = folder / _RESULT
    metadata = ResultRecordMetadata(storage_key=str(file), serializer=JSONSerializer())
    store.write_atomically(file, ResultRecord(result=record, metadata=metadata).serialize())
