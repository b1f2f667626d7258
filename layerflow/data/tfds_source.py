"""What TensorFlow Datasets (TFDS) has, and where its raw files come from: the network, or a mirror of it."""

import contextlib
import io
import json
import logging
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import tensorflow_datasets as tfds
from filelock import FileLock

import layerflow.data.digits  # noqa: F401  (registers the builder `digits`)
from layerflow import checksums, store, user_code
from layerflow.data.own_sources import module_of
from layerflow.errors import DatasetError, MirrorError, UnreachableError, did_you_mean, heals, printed
from layerflow.settings.data import DataConfig

log = logging.getLogger(__name__)


def find_builder(config: DataConfig) -> tfds.core.DatasetBuilder:
    """The TFDS builder of ``config.name``, from the catalogue, a module of your own or a prepared ``data.data_dir``.

    Raises:
        DatasetError: With near matches for an unknown name, or if ``data.data_dir`` does not hold it.
    """
    name = config.name.partition(":")[0].partition("/")[0]
    if own := module_of(config):
        user_code.load_module(*own)
    try:
        builder = tfds.builder(config.name, data_dir=_data_dir(config), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise DatasetError(
            "data.name must be `digits`, `folder`, the name of a TensorFlow Datasets dataset, or of one that "
            f"data.module or a package registers. Received: {config.name!r}{did_you_mean(name, [*known, 'folder'])}."
        ) from error
    except Exception as error:  # a version TFDS does not have, damaged files, or any error of a custom builder
        if heals(error):
            raise
        if config.data_dir:
            raise DatasetError(
                f"data.data_dir must hold {config.name} as TensorFlow Datasets prepared it. {printed(config.data_dir)} "
                f"can't be read ({_reason(error)}); prepare it again, or leave data.data_dir out."
            ) from error
        # An AssertionError is of a version that the builder does not have.
        if not isinstance(error, AssertionError) and _set_damaged_aside(Path(_data_dir(config)) / name):
            return find_builder(config)
        raise DatasetError(f"TensorFlow Datasets can't build {config.name!r}: {_reason(error)}") from error
    # Not by `is_prepared`, which warns in a line of its own.
    if config.data_dir and not (builder.data_path / "dataset_info.json").exists():
        raise DatasetError(
            f"data.data_dir must hold {builder.info.full_name} as TensorFlow Datasets prepared it. {config.data_dir} "
            "does not; prepare it there, or leave data.data_dir out."
        )
    return builder


def refuse_damaged(builder: tfds.core.DatasetBuilder, error: Exception) -> NoReturn:
    """Say of a prepared dataset that its records can't be read, as ``error`` tells, and whose fault it is.

    Raises:
        DatasetError: Always.
    """
    prepared = Path(builder.data_dir)
    digests = _digests_of(prepared)
    if digests.exists() and _read_digests(digests) == checksums.digests(prepared):
        raise DatasetError(
            f"{builder.info.full_name} must make records that can be decoded. It made others ({_reason(error)}); "
            "correct its builder, or choose another dataset."
        ) from error
    raise DatasetError(
        f"{printed(builder.data_dir)} must hold {builder.info.full_name} as TensorFlow Datasets prepared it. It can't "
        f"be read ({_reason(error)}); remove it and prepare it again, or set data.data_dir to another."
    ) from error


def _reason(error: Exception) -> str:
    said = next(iter(str(error).strip().splitlines()), "")
    return printed(f"{type(error).__name__}: {said}" if said else type(error).__name__, 400)


def _data_dir(config: DataConfig) -> str:
    """Where TFDS keeps prepared datasets: ``data.data_dir``, its own variable TFDS_DATA_DIR, or the store.

    A custom builder's datasets are stored under the digest of its code, and are prepared again when that changes.
    """
    if config.data_dir:
        return config.data_dir
    try:
        home = Path(os.environ.get("TFDS_DATA_DIR") or store.root() / "tfds").expanduser()
    except RuntimeError as error:
        raise DatasetError(
            "TFDS_DATA_DIR must name a folder. It names a user who doesn't exist; set another."
        ) from error
    own = module_of(config)
    return str(home / user_code.package_digest(*own)[:16] if own else home)


def prepare(builder: tfds.core.DatasetBuilder, config: DataConfig, scratch: Path) -> None:
    """Let TFDS download, check and convert the dataset, once however many runs ask for it.

    What was prepared has its SHA-256 written down; where it is damaged it is set aside, and prepared again.
    """
    if config.data_dir:
        return
    prepared = Path(builder.data_dir)
    home, digests = prepared.parent, _digests_of(prepared)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".layerflow.lock"):
        if prepared.exists() and _is_whole(prepared, digests):
            return
        for leftover in home.glob("incomplete.*"):  # of a preparation that was killed: its lock is ours now
            shutil.rmtree(leftover)
        require_sources(builder, config)
        mirror = config.mirror_folder
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        if type(builder).url_infos:
            log.info("preparing %s from %s", builder.info.full_name, mirror or "its source")
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints sizes that it does not know yet
            builder.download_and_prepare(
                download_dir=scratch / "downloads",
                download_config=tfds.download.DownloadConfig(
                    manual_dir=mirror / builder.name if mirror else None,
                    # One for each dataset: in a shared one TFDS mixes files of equal names.
                    extract_dir=scratch / "extracted",
                ),
            )
        store.write_atomically(digests, json.dumps(checksums.digests(prepared)).encode())
        for folder in ("downloads", "extracted"):
            shutil.rmtree(scratch / folder, ignore_errors=True)


def _is_whole(prepared: Path, digests: Path) -> bool:
    """Whether what was prepared is as it was then; of what others prepared, nothing is known."""
    if not digests.exists():
        return True
    expected, found = _read_digests(digests), checksums.digests(prepared)
    if expected == found:
        return True
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    wrong = names[0] if expected else digests.name
    aside = prepared.with_name(f".damaged-{prepared.name}-{time.time_ns()}")
    prepared.rename(aside)
    log.warning("%s in %s is not as it was prepared; it was set aside as %s", wrong, prepared, aside.name)
    return False


def _digests_of(prepared: Path) -> Path:
    """The list of the SHA-256 of what was prepared, beside it."""
    return prepared.with_name(f".{prepared.name}.sha256.json")


def _read_digests(digests: Path) -> dict[str, str]:
    """The SHA-256 of each prepared file; none where the list is damaged, for no dataset is without files."""
    try:
        known = json.loads(digests.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(value, str) for value in known.values()) else {}


def _set_damaged_aside(home: Path) -> bool:
    """Set aside what was prepared below ``home`` and is not as it was then; says whether there was any."""
    found = False
    for digests in sorted(home.rglob(".*.sha256.json")):
        prepared = digests.with_name(digests.name.removeprefix(".").removesuffix(".sha256.json"))
        with FileLock(digests.with_name(".layerflow.lock")):
            found |= prepared.exists() and not _is_whole(prepared, digests)
    return found


def require_sources(builder: tfds.core.DatasetBuilder, config: DataConfig) -> str:
    """Know before TFDS starts that every raw file can be had, and from where: it would retry for minutes.

    Raises:
        MirrorError: If a mirror is set, and lacks a file or holds a damaged one.
        UnreachableError: If no mirror is set and the files' server does not answer.
    """
    if config.data_dir or Path(builder.data_dir).exists():
        return f"prepared in {builder.data_dir}"
    files = type(builder).url_infos
    if not files:
        return "made on this machine, nothing is downloaded"
    if mirror := config.mirror_folder:
        # A builder with several configurations lists the files of all; each needs only its own.
        complete = len(builder.builder_configs) < 2
        _check_mirror(mirror / builder.name, files, complete)
        which = "all raw files" if complete else "the raw files that are there"
        return f"{which}, in {mirror / builder.name}, have their SHA-256"
    url = next(iter(files))
    _check_network(builder.name, url)
    return f"to be downloaded from {urlsplit(url).hostname}, which can be reached"


def _check_mirror(folder: Path, files: dict[str, tfds.download.checksums.UrlInfo], complete: bool) -> None:
    for expected in files.values():
        file = folder / expected.filename
        if not file.is_file():
            if complete:
                raise MirrorError(f"The mirror must hold {file}, which is not there; add it under that name.")
            continue
        if (received := checksums.sha256(file)) != expected.checksum:
            raise MirrorError(
                f"{file} in the mirror is damaged: expected SHA-256 {expected.checksum}, received {received}; "
                "copy it again."
            )


def _check_network(name: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        # 5 seconds: a server that takes longer to answer would take hours for a dataset.
        socket.create_connection((parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)), 5).close()
    except OSError as error:
        raise UnreachableError(
            f"Dataset {name!r} must be downloaded, and {parts.hostname} can't be reached ({error}); "
            "connect this machine, or set data.mirror (or LAYERFLOW_MIRROR) to a folder that holds "
            f"{name}/ with the raw files."
        ) from error
