"""The commands of `layerflow` and their flags. Each imports what it needs when it runs: `--help` must be quick."""

import contextlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter, validators
from pydantic import BaseModel

from cli import aliases, data_commands, models_commands, storage
from cli.given import settings_of, space_of
from cli.models_commands import OPTIONS, Json
from cli.terminal import Output
from layerflow.config import RetrainConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig

# Flags keep the names of the config's fields, underscores and all; dashes work too.
_settings = Parameter(name_transform=lambda name: name, negative=())
app = App(
    name="layerflow",
    version=lambda: importlib.metadata.version("layerflow"),
    help="Retrain Keras image classifiers, and publish a model only after a fresh process has proved it. "
    "With --debug, any command prints the traceback of an error.",
    default_parameter=_settings,
    group_parameters=OPTIONS,
    help_on_error=False,
)
app.register_install_completion_command(help="Install completion of commands and flags for your shell.")

#: The flags that a newcomer needs, in the order of `--help`.
_MOST_USED = {
    "data": ("name", "path", "image_size"),
    "model": ("name", "weights"),
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
    refresh: bool = False,
    as_json: Json = False,
    output: Output = Output(),  # noqa: B008  (frozen)
) -> None:
    """Run the flow `retrain` once: load, build, train, evaluate, export, verify, publish.

    Parameters
    ----------
    config
        YAML file with the same fields; flags override it. Default: the layerflow.yaml of this folder, if there is one.
    refresh
        Make every step anew, whether it is cached or not.
    as_json
        Print one JSON object on stdout; everything else goes to stderr.
    """
    from cli.output import retrained_as_json, show_retrained
    from cli.run import run_retrain

    settings = settings_of(config, settings)
    # TFDS prints its progress; stdout is for the answer alone.
    with contextlib.redirect_stdout(sys.stderr):
        run = run_retrain(settings, output, refresh)
    if as_json:
        print(json.dumps(retrained_as_json(run), indent=2))
    else:
        show_retrained(run)


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
    as_json: Json = False,
    output: Output = Output(),  # noqa: B008  (frozen)
) -> None:
    """Try settings on the validation images, then run the flow `retrain` with the best ones.

    To resume a killed sweep, re-run the command. To continue a finished one, raise --trials.

    Parameters
    ----------
    config
        YAML file with the settings of a run; flags override it.
    trials
        Total number of trials, including those of earlier runs of the same sweep.
    parallel
        Trials that run at the same time.
    space
        YAML file of the search space, one line per field: `training.learning_rate: {log_uniform: [1e-4, 1e-2]}`; or
        uniform, int, choice. Without it and --over, the usual settings of the network.
    over
        One such line; repeat the flag for several. It overrides the file.
    ray
        Address of the Ray cluster that runs the trials (`auto`, `ray://host:10001`), or `local` to start one.
    as_json
        Print one JSON object on stdout; everything else goes to stderr.
    """
    from cli.output import show_sweep, sweep_as_json
    from cli.run import run_sweep

    settings = settings_of(config, settings)
    tried = space_of(space, over or [])
    with contextlib.redirect_stdout(sys.stderr):
        run = run_sweep(settings, tried, trials, parallel, ray, output)
    if as_json:
        print(json.dumps(sweep_as_json(run), indent=2))
    else:
        show_sweep(run)


@app.command
def verify(
    folder: Path,
    /,
    *,
    public_key: Annotated[Path | None, Parameter(name="--public-key")] = None,
    certificate_chain: Annotated[Path | None, Parameter(name="--certificate-chain")] = None,
    identity: str | None = None,
    identity_provider: Annotated[str | None, Parameter(name="--identity-provider")] = None,
) -> None:
    """Verify an exported model: its receipt and the ledger, then, in a fresh process, digests, signature and answers.

    What it has in other formats is verified too, each in a process that has only its runtime.

    Without a key, the files in one folder vouch only for each other: whoever can write the folder and its ledger can
    replace all of them together. With a key, the signature of the version must be of every file, and the ledger is not
    asked.

    Parameters
    ----------
    folder
        A SavedModel that layerflow exported, such as store/models/mlp-digits/1.
    public_key
        PEM file of the public key by which the version must be signed.
    certificate_chain
        PEM file of the root certificate below which that of the signature must be.
    identity
        Who must have signed it by Sigstore, such as ann@example.com; with --identity-provider.
    identity_provider
        Address of what vouches for the identity, such as https://accounts.google.com.
    """
    from cli.output import show_verification
    from layerflow.export.portable import formats_of
    from layerflow.export.verification import inspect
    from layerflow.registry.signatures import trust_of, verify_signature
    from layerflow.registry.versions import provenance

    trust = trust_of(public_key, certificate_chain, identity, identity_provider)
    told = {"signed": verify_signature(folder, trust)} if trust else {"receipt": provenance(folder)}
    report = inspect(folder)
    report["checks"] |= {**told, **formats_of(folder)}
    show_verification(folder, report)


app.command(models_commands.models)
app.command(models_commands.predict)
app.command(models_commands.try_, name="try")
app.command(models_commands.serving_config)
app.command(models_commands.report)
app.command(models_commands.rollback)
app.command(models_commands.approve)
app.command(aliases.alias)
app.command(storage.gc)
app.command(storage.store)


@app.command
def init(name: str, /, *, data: Path | None = None) -> None:
    """Start a project: a folder with settings, a network and a layer of your own, a test, and a nightly run.

    Parameters
    ----------
    name
        The folder, which is also the name of its Python package and of its model, such as mypets.
    data
        Your images, train/<class>/ or <class>/; default: scikit-learn's digits.
    """
    from cli.init import init

    print(f"{init(name, data)} is made. Next: cd {name} && layerflow retrain")


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and flags: put it where your shell looks for such, or source it.

    Parameters
    ----------
    shell
        The shell.
    """
    print(app.generate_completion(shell=shell))


@app.command
def doctor(
    *,
    data: DataConfig = DataConfig(),  # noqa: B008  (frozen)
    model: ModelConfig = ModelConfig(),  # noqa: B008  (frozen)
    as_json: Json = False,
) -> None:
    """Check whether this machine can run the flow: versions, devices, store, dataset, weights, server, held locks.

    Parameters
    ----------
    as_json
        Print one JSON array.
    """
    from cli.doctor import diagnose

    settings = settings_of(None, RetrainConfig(data=data, model=model))
    diagnose(settings.data, settings.model, as_json)


@app.command
def deploy(*, webhook: str | None = None, notify: str | None = None, file: Path | None = None) -> None:
    """Create or update the work pool, the deployments, and the automations on the Prefect server.

    Parameters
    ----------
    webhook
        Address to notify when a model is promoted, rolled back or waits for approval, or a run fails.
    notify
        Prefect notification block that sends when a model is promoted, rolled back or waits for approval, such as
        slack-webhook/my-block.
    file
        Deployments for other work pools, such as pools/docker.yaml; default: prefect.yaml and its process pool.
    """
    from cli.deploy import deploy

    deploy(webhook, file, notify)


@app.command
def ui(*, port: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))] = 4200) -> None:
    """Start a Prefect server with its UI, for this machine only, with a password that nobody has to type.

    Parameters
    ----------
    port
        The port to listen on.
    """
    from cli.ui import serve_ui

    serve_ui(port)


@app.command
def serve() -> None:
    """Run the deployments of prefect.yaml on their schedules from this process, without a worker."""
    from cli.deploy import serve

    serve()


app.command(data_commands.data)
