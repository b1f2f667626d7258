"""The commands on data; each imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from cli.given import settings_of
from cli.models_commands import Json
from layerflow.config import RetrainConfig

data = App(name="data", help="Check the data before training; list, compare and write the versions in the store.")


@data.command
def check(
    *,
    settings: Annotated[RetrainConfig, Parameter(name="*")] = RetrainConfig(),  # noqa: B008  (frozen)
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Load and check the data as a run does, without training: leakage, duplicates, missing classes, drift.

    Parameters
    ----------
    config
        YAML file with the settings of a run; flags override it.
    as_json
        Print the report as one JSON object.
    """
    from cli.check_data import check_data

    settings = settings_of(config, settings)
    check_data(settings, as_json)


@data.command(name="list")
def list_versions(*, as_json: Json = False) -> None:
    """List the versions of data in the store, the last used first, and the models that were made from them.

    Parameters
    ----------
    as_json
        Print one JSON array.
    """
    from cli.data_versions import list_prepared

    list_prepared(as_json)


@data.command
def diff(before: str, after: str, /, *, as_json: Json = False) -> None:
    """Show the differences between two versions of data: images added, removed and relabelled, counts by class.

    Parameters
    ----------
    before
        The first letters of the first version's digest.
    after
        The first letters of the second version's digest.
    as_json
        Print one JSON object.
    """
    from cli.data_versions import show_difference

    show_difference(before, after, as_json)


@data.command
def export(version: str, folder: Path, /) -> None:
    """Write the images of a version of data as PNG files into a new folder, `train/<class>/` and `test/<class>/`.

    Parameters
    ----------
    version
        The first letters of the version's digest.
    folder
        The folder to make.
    """
    from cli.data_versions import export_version

    export_version(version, folder)
