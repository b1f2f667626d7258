"""The command on data."""

import contextlib
import sys

import numpy as np
from rich.table import Table
from rich.text import Text

from cli.output import console
from cli.terminal import import_tensorflow_alone, quiet_stderr
from layerflow import plugins, store
from layerflow.config import RetrainConfig
from layerflow.data.slices import slices_of
from layerflow.outcomes import OwnFindings
from layerflow.records import DataReport, DatasetRef
from layerflow.registry import versions
from layerflow.scores import slice_name

_COLOURS = {"info": "blue", "warn": "yellow", "stop": "red"}


def check_data(config: RetrainConfig, as_json: bool) -> None:
    """Load and check the data as the flow's first two steps do, without Prefect; what they make is kept for the flow.

    Raises:
        DataError: After all was shown, if a finding stops a run.
    """
    store.ensure_writable()
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints its progress; stdout is for the answer alone
        with quiet_stderr():
            import_tensorflow_alone()

            import tasks
            from layerflow.data.own_checks import require_no_stop as require_no_own_stop
            from layerflow.data.validation import require_no_stop
            from layerflow.devices import set_up
            from tasks import logs
            from tasks.caching import make

            logs.install()
            set_up(config.devices)
        data = make(tasks.load_data, config.data, config.devices)
        baseline = versions.profile_in_service(config.registry_name, data.digest)
        report = make(tasks.validate_data, config.checks, data, baseline)
        own = _own_checks(config, data)
    if as_json:
        found = report.model_copy(update={"findings": report.findings + own.findings}) if own else report
        print(found.model_dump_json(indent=2))
    else:
        _show(data, report, own)
    require_no_stop(report)
    if own:
        require_no_own_stop(own)


def _own_checks(config: RetrainConfig, data: DatasetRef) -> OwnFindings | None:
    """What the checks of ``extend.checks`` find, where there are any."""
    import tasks
    from tasks.caching import make

    if not config.extend.checks:
        return None
    code = plugins.digests("checks", config.extend.checks)
    return make(tasks.own_checks, config.extend.checks, code, data)


def _show(data: DatasetRef, report: DataReport, own: OwnFindings | None) -> None:
    terminal, profile = console(), report.profile
    counts = Table("class", *data.counts, title=f"{data.name} {data.version}", title_justify="left")
    for number, name in enumerate(data.classes):
        counts.add_row(name, *(f"{profile.counts[split][number]:,}" for split in data.counts))
    terminal.print(counts)
    _show_slices(data)
    height, width, channels = data.image_shape
    terminal.print(
        f"{sum(data.counts.values()):,} images of {height} x {width} x {channels}, {profile.lowest} to "
        f"{profile.highest}, mean {profile.mean:.1f}, standard deviation {profile.deviation:.1f}"
    )
    findings = report.findings + (own.findings if own else ())
    for finding in findings:
        level = (finding.level, _COLOURS[finding.level])
        terminal.print(Text.assemble(level, f"  {finding.check}: {finding.text}"))
    if not findings:
        terminal.print("no findings")
    terminal.print(f"card  {store.path(report.card)}")


def _show_slices(data: DatasetRef) -> None:
    """How many test images each slice has, where ``data.slices`` is set."""
    found = slices_of(data)
    counts = found.counts(np.full(data.counts["test"], True))
    if counts:
        table = Table("slice", "test")
        for (column, value), count in zip(found.names, counts, strict=True):
            table.add_row(slice_name(column, value), f"{count:,}")
        console().print(table)
