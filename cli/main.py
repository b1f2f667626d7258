"""The command `layerflow`."""

import contextlib
import importlib.metadata
import json
import os
import select
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import (
    App,
    CycloptsError,
    Group,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
    validators,
)
from pydantic import BaseModel, ValidationError

from cli import yaml_file
from cli.terminal import Output, explain, interrupted, print_traceback
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, config_sentence, mask
from layerflow.settings.data import DataConfig

# Flags keep the names of the config's fields, underscores and all; dashes work too.
_settings = Parameter(name_transform=lambda name: name, negative=())
app = App(
    name="layerflow",
    version=lambda: importlib.metadata.version("layerflow"),
    help="Retrain image classifiers made of your own Keras layers, and ship only what is proved. "
    "With --debug, any command prints the traceback of an error.",
    default_parameter=_settings,
    group_parameters=Group("Options", sort_key=2),
    help_on_error=False,
)
app.register_install_completion_command(help="Let the shell complete commands and flags.")

#: The flags that a newcomer needs, in the order of `--help`.
_MOST_USED = {
    "data": ("name", "path", "image_size"),
    "model": ("name", "hidden"),
    "training": ("epochs", "batch_size", "learning_rate"),
    "gate": ("min_accuracy",),
    "registry": ("name",),
}
_most_used = Group("Most used", sort_key=1)


def _group_flags() -> None:
    """Divide the flags in `--help` as the settings are divided, the most used ones first."""
    for number, (name, group) in enumerate(RetrainConfig.model_fields.items(), 3):
        rest = Group(name.capitalize(), sort_key=number)
        assert isinstance(group.annotation, type)
        assert issubclass(group.annotation, BaseModel)
        for field, info in group.annotation.model_fields.items():
            info.metadata.append(Parameter(group=_most_used if field in _MOST_USED.get(name, ()) else rest))


_group_flags()
_EXAMPLES = """Examples:

    layerflow retrain

    layerflow retrain --data.name folder --data.path photos --data.image_size 64x64 --model.name cnn

    layerflow retrain --config nightly.yaml --training.epochs 5 --json

Add --debug for the traceback of an error."""


@app.command(help_epilogue=_EXAMPLES)
def retrain(
    *,
    settings: Annotated[RetrainConfig, Parameter(name="*")] = RetrainConfig(),  # noqa: B008  (frozen)
    config: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    output: Output = Output(),  # noqa: B008  (frozen)
) -> None:
    """Run the flow `retrain` once: load, build, train, evaluate, export, verify, publish.

    Parameters
    ----------
    config
        YAML file with the same fields; flags win over it.
    as_json
        Print one JSON object on stdout; everything else goes to stderr.
    """
    from cli.output import retrained_as_json, show_retrained
    from cli.run import run_retrain

    settings = _over_file(config, settings) if config else settings
    # TFDS prints its progress; stdout is for the answer alone.
    with contextlib.redirect_stdout(sys.stderr):
        outcome = run_retrain(settings, output)
    if as_json:
        print(json.dumps(retrained_as_json(outcome), indent=2))
    else:
        show_retrained(outcome)


@app.command
def sweep(
    *,
    settings: Annotated[RetrainConfig, Parameter(name="*")] = RetrainConfig(),  # noqa: B008  (frozen)
    config: Path | None = None,
    trials: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20,
    parallel: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    space: Path | None = None,
    over: list[str] | None = None,
    ray: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    output: Output = Output(),  # noqa: B008  (frozen)
) -> None:
    """Try settings on the validation images, then run the flow `retrain` with the best ones.

    The same command goes on where a killed one stopped; more trials continue it.

    Parameters
    ----------
    config
        YAML file with the settings of a run; flags win over it.
    trials
        Trials in all; those of earlier runs of the same sweep count.
    parallel
        Trials at a time.
    space
        YAML file of what is tried, a line a field: `training.learning_rate: {log_uniform: [1e-4, 1e-2]}`; or uniform,
        int, choice. Without it and --over: what is usual for the network.
    over
        One such line; may be given several times, and wins over the file.
    ray
        Run the trials on the Ray cluster of this address (`auto`, `ray://host:10001`), or `local` to start one.
    as_json
        Print one JSON object on stdout; everything else goes to stderr.
    """
    from cli.output import show_swept, swept_as_json
    from cli.run import run_sweep

    settings = _over_file(config, settings) if config else settings
    tried = _space(space, over or [])
    with contextlib.redirect_stdout(sys.stderr):
        done = run_sweep(settings, tried, trials, parallel, ray, output)
    if as_json:
        print(json.dumps(swept_as_json(done), indent=2))
    else:
        show_swept(done)


@app.command
def verify(folder: Path, /) -> None:
    """Verify an exported model: its receipt and the ledger, then, in a fresh process, digests, signature and answers.

    Without a signature, the files of one folder vouch only for each other: whoever can write the folder and the ledger
    beside it can replace all of them together.

    Parameters
    ----------
    folder
        A SavedModel that layerflow exported, such as store/models/mlp-digits/1.
    """
    from cli.output import show_verification
    from layerflow.export.verification import inspect
    from layerflow.registry.versions import provenance

    told = provenance(folder)
    report = inspect(folder)
    report["checks"]["receipt"] = told
    show_verification(folder, report)


models = App(
    name="models",
    help="List the published versions, newest first; show one, compare two, or check them all.",
    default_parameter=_settings,
)
app.command(models)
_Json = Annotated[bool, Parameter(name="--json")]
_Version = Annotated[int, Parameter(show_default=False)]


@models.default
def list_models(*, name: str | None = None, as_json: _Json = False) -> None:
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
def show(version: _Version, /, *, name: str | None = None, as_json: _Json = False) -> None:
    """Show how a published version came about, and how good it is.

    Parameters
    ----------
    version
        Its number.
    name
        The model, where several are published.
    as_json
        Print its receipt.
    """
    from cli.models import show_version

    show_version(version, name, as_json)


@models.command
def diff(before: _Version, after: _Version, /, *, name: str | None = None, as_json: _Json = False) -> None:
    """Show what differs between two published versions: data, settings, code, libraries, figures.

    Parameters
    ----------
    before
        The number of the one.
    after
        The number of the other.
    name
        The model, where several are published.
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


@app.command
def report(
    version: int | None = None,
    /,
    *,
    name: str | None = None,
    browser: Annotated[bool, Parameter(name="--open", negative="--no-open")] = True,
) -> None:
    """Open the report of a published version in the browser, and print its path: one page with all cards of its run.

    Parameters
    ----------
    version
        Its number; default: the one in service.
    name
        The model, where several are published.
    browser
        Open it in the browser; otherwise only its path is printed.
    """
    from cli.models import open_report

    open_report(version, name, browser)


@app.command
def rollback(*, to: int | None = None, name: str | None = None, as_json: _Json = False) -> None:
    """Put an earlier version into service again: its bytes, verified, become the next version.

    Parameters
    ----------
    to
        The version to restore; default: the newest with another model than the one in service.
    name
        The model, where several are published.
    as_json
        Print one JSON object.
    """
    from cli.models import roll_back

    roll_back(name, to, as_json)


@app.command
def doctor(*, data: DataConfig = DataConfig(), as_json: _Json = False) -> None:  # noqa: B008  (frozen)
    """Say whether this machine can run the flow: versions, devices, store, dataset, Prefect server, held locks.

    Parameters
    ----------
    as_json
        Print one JSON array.
    """
    from cli.doctor import diagnose

    diagnose(data, as_json)


@app.command
def deploy(*, webhook: str | None = None, file: Path | None = None) -> None:
    """Put the flows on the Prefect server: work pool, deployments, automations. Again, it brings them up to date.

    Parameters
    ----------
    webhook
        Address that is told when a model is promoted or rolled back, or a run fails.
    file
        Deployments for other work pools, such as pools/docker.yaml; default: prefect.yaml and its process pool.
    """
    from cli.deploy import deploy

    deploy(webhook, file)


@app.command
def ui(*, port: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))] = 4200) -> None:
    """Start a Prefect server with its UI, for this machine only, with a password that nobody has to type.

    Parameters
    ----------
    port
        The port that it listens on.
    """
    from cli.ui import serve_ui

    serve_ui(port)


@app.command
def serve() -> None:
    """Run the deployments of prefect.yaml on their schedules from this process, without a worker."""
    from cli.deploy import serve

    serve()


data = App(name="data", help="Look at the data before anything is trained.", default_parameter=_settings)
app.command(data)


@data.command
def check(
    *,
    settings: Annotated[RetrainConfig, Parameter(name="*")] = RetrainConfig(),  # noqa: B008  (frozen)
    config: Path | None = None,
    as_json: _Json = False,
) -> None:
    """Load the data and check them as a run would: leakage, duplicates, missing classes, drift. Trains nothing.

    Parameters
    ----------
    config
        YAML file with the settings of a run; flags win over it.
    as_json
        Print the report as one JSON object.
    """
    from cli.check_data import check_data

    settings = _over_file(config, settings) if config else settings
    check_data(settings, as_json)


def _over_file(file: Path, flags: RetrainConfig) -> RetrainConfig:
    """The settings of a YAML file, with those that were given as flags laid over them."""
    content = yaml_file.read("--config", file, "training: {epochs: 5}")
    for group, given in flags.model_dump(exclude_unset=True).items():
        below = content.get(group) or {}
        content[group] = {**below, **given} if isinstance(below, dict) else below
    try:
        return RetrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(config_sentence(error)) from error


def _space(file: Path | None, over: list[str]) -> dict[str, Any] | None:
    """The search space of a YAML file and of flags, as they stand; nothing where neither is given."""
    form = "training.learning_rate: {log_uniform: [1e-4, 1e-2]}"
    content = yaml_file.read("--space", file, form) if file else {}
    for line in over:
        content |= yaml_file.parse("--over", line.encode(errors="surrogateescape"), form)
    return content if file or over else None


#: The number of the file that a command prints to.
_STDOUT = 1


def main() -> None:
    """Run the command and leave with 0, 2 for an error of the user's, 130 after Ctrl-C, or 1 for anything else."""
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    try:
        app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _leave(130, interrupted(arguments))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():  # not our error, and nothing left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
            return
        if "--debug" in sys.argv:
            print_traceback(error)
        _leave(*((2, _usage(error, arguments)) if isinstance(error, CycloptsError) else explain(error)))


def _is_output_closed() -> bool:
    """Whether the reader of our output has gone, as `head` does; another pipe may have broken."""
    output = select.poll()
    output.register(_STDOUT, 0)
    return bool(output.poll(0))


def _usage(error: CycloptsError, arguments: list[str]) -> str:
    """What is wrong with the words of the command, and the words that were meant where that is likely."""
    if isinstance(error.__cause__, ValidationError):
        return config_sentence(error.__cause__)
    word = arguments[0] if arguments else ""
    if isinstance(error, UnknownCommandError) and word in models:
        return f"layerflow has no command {word}. Use `layerflow models {shlex.join(arguments)}`."
    if (
        isinstance(error, UnusedCliTokensError)
        and (stray := error.unused_tokens)
        and word in ("retrain", "sweep", "data")
    ):
        return f"{word} takes flags only. Received: {' '.join(stray)}; use --data.name {stray[0]} to choose the data."
    return _one_line(error)


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())


def _leave(status: int, sentence: str) -> None:
    print(f"layerflow: {mask(sentence)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
