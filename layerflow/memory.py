"""How much memory is free, and giving back what a mapped file has taken of it."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

#: Of each version of Linux' control groups: the folder, the limit, what is used, and what of it are cached files.
_V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the machine has, or what its control groups leave, the lowest."""
    return min([_machine(root), *_control_groups(root)])


def give_back(array: Any) -> None:
    """Let go of the pages that reading a memory-mapped array has taken; they stay where the system caches files.

    Args:
        array: Any array; of images in packs, the pages of all packs.
    """
    for part in getattr(array, "packs", [array]):
        if (mapped := getattr(part, "_mmap", None)) is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _machine(root: Path) -> int:
    try:
        return 1024 * _figures(root / "proc/meminfo")["MemAvailable:"]
    except (OSError, KeyError):  # no Linux
        return int(psutil.virtual_memory().available)


def _control_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        home, limit, used, cached = _V1 if controllers else _V2
        # A limit holds for the groups below it too; and a container may see its own group as the topmost.
        group = Path(path.lstrip("/"))
        for folder in (root / home / each for each in (group, *group.parents)):
            try:
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
                yield most - taken + _figures(folder / "memory.stat")[cached]
            except (OSError, ValueError, KeyError):  # not seen from here, or without a limit
                continue


def _figures(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
