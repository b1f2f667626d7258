"""The flags of the commands on published models; ``cli.models`` does what they ask."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter, validators

from layerflow.settings.gate import SignConfig

#: Where `--help` shows the flags that are not settings of a run.
OPTIONS = Group("Options", sort_key=2)

models = App(
    name="models",
    help="List the published versions, newest first. Show one, compare two, or verify all.",
    group_parameters=OPTIONS,
)
Json = Annotated[bool, Parameter(name="--json")]
Version = Annotated[int, Parameter(show_default=False)]


def _short(most: int) -> Callable[[Any, str | None], None]:
    """What refuses a text of more than that many characters."""

    def check(kind: Any, text: str | None) -> None:
        if text and len(text) > most:
            raise ValueError(f"must have at most {most:,} characters, and has {len(text):,}")

    return check


@models.default
def list_models(*, name: str | None = None, as_json: Json = False) -> None:
    """List the published versions, newest first.

    Parameters
    ----------
    name
        Only the versions of this model.
    as_json
        Print one JSON array.
    """
    from cli.models import list_versions

    list_versions(name, as_json)


@models.command
def show(version: Version, /, *, name: str | None = None, as_json: Json = False) -> None:
    """Show the origin and the quality of a published version.

    Parameters
    ----------
    version
        The version's number.
    name
        The model, if several are published.
    as_json
        Print its receipt.
    """
    from cli.models import show_version

    show_version(version, name, as_json)


@models.command
def diff(before: Version, after: Version, /, *, name: str | None = None, as_json: Json = False) -> None:
    """Show the differences between two published versions: data, settings, code, libraries, figures.

    Parameters
    ----------
    before
        The first version's number.
    after
        The second version's number.
    name
        The model, if several are published.
    as_json
        Print one JSON array.
    """
    from cli.models import show_difference

    show_difference(before, after, name, as_json)


@models.command(name="verify")
def verify_all(*, name: str | None = None) -> None:
    """Compare every byte of every published version with its digests, its receipt and the ledger.

    Parameters
    ----------
    name
        Only the versions of this model.
    """
    from cli.models import check_versions

    check_versions(name)


def predict(
    paths: Annotated[list[str], Parameter(negative=(), allow_leading_hyphen=True)],  # `-` is a path
    /,
    *,
    name: str | None = None,
    version: int | None = None,
    top: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    csv: Path | None = None,
    as_json: Json = False,
    evaluate: bool = False,
    card: Path | None = None,
) -> None:
    """Ask a published model about image files: a table, a CSV file, or JSON.

    Parameters
    ----------
    paths
        Image files, folders of them, patterns such as 'photos/**/*.jpg', or - for a list of files on stdin.
    name
        The model, if several are published.
    version
        The version's number; default: the live version.
    top
        How many of the most probable classes to give.
    csv
        The CSV file to write.
    as_json
        Print one JSON array; with --evaluate, one JSON object.
    evaluate
        Compare the answers with the names of the folders below the one that is given: accuracy and confusion matrix.
    card
        With --evaluate, the HTML file to write: accuracy, confusion matrix as a picture, classes.
    """
    from cli.predict import evaluate as print_scores
    from cli.predict import predict as print_answers

    if evaluate or card:
        print_scores(paths, name, version, card, as_json)
    else:
        print_answers(paths, name, version, top, csv, as_json)


def try_(
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8501,
) -> None:
    """Show pictures to the live version on a page, and serve it by TensorFlow Serving's REST API.

    The server follows the registry: a new version takes over without a failed request.

    Parameters
    ----------
    name
        The model, if several are published.
    host
        The address to listen on. With another one than this machine's own, anybody who reaches it may ask.
    port
        The port to listen on; 0 chooses a free one.
    """
    from cli.try_model import serve_model

    serve_model(name, host, port)


def serving_config(name: str | None = None, /, *, base_path: str | None = None) -> None:
    """Print a file for TensorFlow Serving's --model_config_file: the versions with an alias, and the aliases as labels.

    Parameters
    ----------
    name
        The model, if several are published.
    base_path
        Where the server finds the versions, such as /models/mlp-digits or s3://bucket/models/mlp-digits; default:
        where they are here.
    """
    from cli.models import print_serving_config

    print_serving_config(name, base_path)


def report(
    version: int | None = None,
    /,
    *,
    name: str | None = None,
    browser: Annotated[bool, Parameter(name="--open", negative="--no-open")] = True,
) -> None:
    """Open the report of a published version in the browser, and print its path. It has all cards of its run.

    Parameters
    ----------
    version
        The version's number; default: the live version.
    name
        The model, if several are published.
    browser
        Open the report in the browser. Otherwise, only print its path.
    """
    from cli.models import open_report

    open_report(version, name, browser)


def rollback(
    *,
    to: int | None = None,
    name: str | None = None,
    sign: SignConfig = SignConfig(),  # noqa: B008  (frozen)
    as_json: Json = False,
) -> None:
    """Roll back to an earlier version: verify it, and publish its bytes as the next version.

    Parameters
    ----------
    to
        The version to restore; default: the newest one with another model than the live version's.
    name
        The model, if several are published.
    as_json
        Print one JSON object.
    """
    from cli.models import roll_back

    roll_back(name, to, sign, as_json)


def approve(
    name: str,
    /,
    *,
    reject: bool = False,
    reason: Annotated[str, Parameter(validator=_short(1000))] = "",
    by: Annotated[str | None, Parameter(validator=_short(100))] = None,
) -> None:
    """Approve the candidate that waits, and publish it. With --reject, keep the live version.

    Parameters
    ----------
    name
        The model, such as mlp-digits.
    reject
        Reject the candidate.
    reason
        Why; recorded in the receipt.
    by
        Who answers; default: the name of the system user.
    """
    from cli.approve import approve

    approve(name, reject, reason, by)
