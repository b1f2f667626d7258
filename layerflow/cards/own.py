"""What extensions found, as people look at it."""

from pathlib import Path

from layerflow.cards.markdown import plain, table, write
from layerflow.outcomes import OwnFigures, OwnFindings


def write_findings(found: OwnFindings, names: tuple[str, ...], folder: Path) -> None:
    """Write ``card.md`` about your checks."""
    rows = [(finding.level, f"`{finding.check}`", plain(finding.text)) for finding in found.findings]
    quiet = [name for name in names if name not in {finding.check for finding in found.findings}]
    write(
        folder,
        [
            "# Your checks",
            table(("level", "check", "finding"), rows) if rows else "",
            f"Found nothing: {', '.join(f'`{name}`' for name in quiet)}." if quiet else "",
        ],
    )


def write_figures(figures: OwnFigures, folder: Path) -> None:
    """Write ``card.md`` about your figures."""
    rows = [(f"`{name}`", f"{value:.6g}") for name, value in figures.values.items()]
    write(folder, ["# Your figures", table(("metric", "test images"), rows)])
