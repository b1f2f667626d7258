"""What went from the store and what is in it, as people read it."""

from pydantic import ByteSize

from layerflow.cards.markdown import table
from layerflow.collection.outcomes import Bytes, Collected


def draw(done: Collected) -> str:
    """The card, Markdown."""
    return "\n\n".join(
        [
            "# Store",
            summary(done),
            table(("folder", *heads(done)), map(cells, done.kinds)),
            "## By model",
            "What several models need counts for each of them.",
            table(("model", *heads(done)), map(cells, done.models)),
            "## By last use",
            table(("last used", *heads(done)), map(cells, done.ages)),
        ]
    )


def summary(done: Collected) -> str:
    """What was freed, and whether the store is still too large."""
    verb, free = ("would remove", "free") if done.dry_run else ("removed", "freed")
    left = done.bytes - done.freed
    told = f"gc {verb} {done.removed:,} of {done.items:,} items and {free} {size_text(done.freed)}; {size_text(left)} "
    told += "would be left." if done.dry_run else "are left."
    if left > done.max_bytes:
        told += (
            f" That is more than max_size, {size_text(done.max_bytes)}: models need it, or a run uses it. To free "
            "more, lower registry.keep or keep_runs."
        )
    return told


def heads(done: Collected) -> tuple[str, ...]:
    """The heads of a table of parts, without that of its first column."""
    return ("items", "size", *(("would go", "would free") if done.dry_run else ("removed", "freed")))


def cells(part: Bytes) -> tuple[str, ...]:
    """A row of a table of parts, as ``heads`` names it."""
    return part.name, f"{part.items:,}", size_text(part.bytes), f"{part.removed:,}", size_text(part.freed)


def size_text(size: int) -> str:
    """Bytes in the unit that suits them, such as ``1.5GB``."""
    return ByteSize(size).human_readable(decimal=True)
