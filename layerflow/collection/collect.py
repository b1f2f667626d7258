"""Collecting garbage: what no model needs, no process uses, and nobody used for long."""

import bisect
import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerflow import store, uses
from layerflow.collection.items import Item, items, published
from layerflow.collection.liveness import Needs, SharedPacks, is_live, is_of_dataset, needs
from layerflow.collection.outcomes import Bytes, Collected
from layerflow.remote import mirror
from layerflow.settings.gc import GcConfig

#: Where what goes is moved, in one step, and then removed: beside where it was, and so on the same disk.
_REMOVED = ".removed"
#: Where such folders are.
_PLACES = ("*", "tensorboard/*", "receipts/*", "tfds/**")
#: How many things are removed at a time.
_AT_ONCE = 4
#: Seconds for which a lock stays that nobody holds.
_KEEP_LOCKS = 24 * 3600
#: By how many days since their last use things are counted.
_AGES = {"up to a day": 1, "up to a week": 7, "up to a month": 30, "longer": float("inf")}


def collect(config: GcConfig, dry_run: bool = False, now: float | None = None) -> Collected:
    """Remove what ``config`` does not keep, and say what there was and what went.

    A collector that is killed leaves each thing whole or gone. Others may work on the store meanwhile: what they use
    stays, and what they begin to use is there, or they find it missing and make it again.

    Args:
        config: What is kept beside what models need.
        dry_run: Only say what would go.
        now: Seconds since the epoch; default: the time.

    Raises:
        DamagedError: If nobody knows what a published version needs; then nothing went.
    """
    now = time.time() if now is None else now
    if not dry_run:
        _empty()  # what a killed collector left
        store.remove_leftovers()
    with uses.deciding(store.root()) as in_use:
        everything = list(items())
        found = needs(everything, config.keep_runs)
        locks = _Locks()
        in_use |= mirror.pending()
        gone = _take(config, found, everything, in_use, now, lambda item: locks.move_away(item, dry_run))
    if not dry_run:
        _empty()
        _remove_locks(now)
        mirror.forget(now - config.keep_days * 24 * 3600)
    return _told(config, dry_run, found, everything, gone, now)


def _empty() -> None:
    """Remove what was moved away. It is the file system that takes the time, and several at once take half of it."""
    folders = [folder for place in _PLACES for folder in store.root().glob(f"{place}/{_REMOVED}")]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_remove, [entry for folder in folders for entry in folder.iterdir()]))
    with uses.deciding(store.root()):  # no other collector is about to move something there
        for folder in folders:
            with contextlib.suppress(OSError):  # it is not empty again, or it is gone
                folder.rmdir()


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _take(
    config: GcConfig,
    found: Needs,
    everything: list[Item],
    in_use: set[str],
    now: float,
    take: Callable[[Item], bool],
) -> set[str]:
    """Take what is dead, and of what is only young as much as must go for the store to fit its size.

    Args:
        take: Takes an item away, unless somebody works on it; says whether it did.

    Returns:
        The paths of what was taken.
    """
    needed = set[str]().union(*found.by_model.values())
    needed |= {each.path for each in everything if is_of_dataset(each, found.datasets)}
    size = sum(each.size for each in [*everything, *published()])
    shared, young, gone = SharedPacks(everything), list[Item](), set[str]()

    def go(item: Item) -> None:
        nonlocal size
        if item.path not in gone and take(item):
            gone.add(item.path)
            shared.forget(item)
            size -= item.size

    for each in sorted(everything, key=lambda each: each.kind == "packs"):  # after the versions that need them
        if shared.is_needed(each):
            continue
        if not is_live(each, needed, in_use, now, config.keep_days):
            go(each)
        elif each.path not in needed and each.path not in in_use:
            young.append(each)
    for each in sorted(young, key=lambda each: each.used):
        if size <= config.max_bytes:
            break
        go(each)
        for pack in shared.freed_by(each):
            if pack.path not in in_use:
                go(pack)
    return gone


class _Locks:
    """The locks of those who work on items."""

    def __init__(self) -> None:
        self._root, self._made = str(store.root()), set[str]()
        self._names = sorted(file.stem for file in (store.root() / ".locks").glob("*.lock"))

    def move_away(self, item: Item, dry_run: bool) -> bool:
        """Move an item out of sight in one step, unless a process holds one of its locks; says whether it was free."""
        with contextlib.ExitStack() as held:
            for name in self._of(item):
                if not held.enter_context(store.locked_if_free(name)):
                    return False
            for path in () if dry_run else (*item.beside, item.path):
                self._move_away(f"{self._root}/{path}")
        return True

    def _move_away(self, place: str) -> None:
        removed = f"{place.rpartition('/')[0]}/{_REMOVED}"
        if removed not in self._made:
            os.makedirs(removed, exist_ok=True)
            self._made.add(removed)
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it by hand
            os.replace(place, f"{removed}/{uuid.uuid4().hex}")

    def _of(self, item: Item) -> Iterator[str]:
        for name in item.locks:
            if not name.endswith("*"):
                yield name
                continue
            first, after = (bisect.bisect_left(self._names, name[:-1] + end) for end in ("", chr(0x10FFFF)))
            yield from self._names[first:after]


def _remove_locks(now: float) -> None:
    """Remove the locks that are a day old and free. Whoever takes one just now sees that it is gone, and makes it."""
    for file in (store.root() / ".locks").glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):  # another collector was quicker
            if now - file.stat().st_mtime > _KEEP_LOCKS:
                with store.locked_if_free(file.stem) as free:
                    if free:
                        file.unlink()


def _told(
    config: GcConfig, dry_run: bool, found: Needs, everything: list[Item], gone: set[str], now: float
) -> Collected:
    def age_of(item: Item) -> str:
        return next(name for name, days in _AGES.items() if now - item.used <= days * 24 * 3600)

    versions = list(published())
    by_path = {each.path: each for each in everything}
    of_models = [(each.path.split("/")[1], each) for each in versions]
    of_models += [(name, by_path[path]) for name, paths in found.by_model.items() for path in paths if path in by_path]
    return Collected(
        kinds=_divided(((each.kind, each) for each in [*versions, *everything]), gone),
        ages=_divided(sorted(((age_of(each), each) for each in everything), key=lambda pair: -pair[1].used), gone),
        models=_divided(sorted(of_models), gone),
        max_bytes=config.max_bytes,
        dry_run=dry_run,
    )


def _divided(some: Iterable[tuple[str, Item]], gone: set[str]) -> tuple[Bytes, ...]:
    """The sums of the items of each part, in the order in which the parts come first."""
    parts = dict[str, Bytes]()
    for name, each in some:
        went, so_far = each.path in gone, parts.get(name, Bytes(name=name))
        parts[name] = Bytes(
            name=name,
            items=so_far.items + 1,
            bytes=so_far.bytes + each.size,
            removed=so_far.removed + went,
            freed=so_far.freed + went * each.size,
        )
    return tuple(parts.values())
