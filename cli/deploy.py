"""The commands that put the flows on a Prefect server: deployments, automations, and serving them from here."""

import contextlib
import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from cli.given import PROJECT, settings_of
from cli.prefect_server import configured_url, ensure_answering
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, ServerError, config_sentence, did_you_mean, printed, shown
from layerflow.registry.receipt import changes

#: The deployments and automations that come with layerflow, also in a wheel.
_PROJECT = Path(__file__).parent / "project"
_POOL = "layerflow"
_PREFECT = str(Path(sys.executable).with_name("prefect"))


def deploy(webhook: str | None, file: Path | None = None, notify: str | None = None) -> None:
    """Create the work pool, the deployments of prefect.yaml and the automations of automations.yaml, or update them.

    A prefect.yaml in the working folder goes before layerflow's own. Unless its deployments have steps that pull code,
    workers run in the working folder. Those of another ``file`` are made in the pools that it names, which must be
    there: they differ from house to house.

    Raises:
        ServerError: If no server is configured or it does not answer, or Prefect refuses a deployment.
        ConfigError: If an argument does not name what it must.
    """
    if webhook and not webhook.startswith(("http://", "https://")):
        # Not even masked: of many services, the path is the secret.
        raise ConfigError(
            "--webhook must be an address that starts with http:// or https://; yours does not. Add the scheme."
        )
    if file and not file.is_file():
        raise ConfigError(f"--file must name an existing deployments file, such as pools/docker.yaml. Received: {file}")
    _require_unhidden()
    _require_server()
    notification = _find_notification(notify) if notify else None
    for entry in yaml.safe_load((file or _deployments_file()).read_text())["deployments"]:
        for each in entry.get("triggers") or ():
            _trigger(each)
    if file is None:
        _make_pool()
    if status := _prefect("deploy", "--all", "--prefect-file", str((file or _deployments_file()).absolute())):
        raise ServerError(f"`prefect deploy --all` must succeed. It ended with status {status}; it says why above.")
    _tell_of_other_settings(file or _deployments_file())
    blocks = {"webhook": _save_webhook(webhook) if webhook else None, "notification": notification}
    for content in yaml.safe_load((_PROJECT / "automations.yaml").read_text()):
        for action in content["actions"]:
            if (block := action.get("block_document_id")) in blocks:
                action["block_document_id"] = blocks[block]
        if all(action.get("block_document_id", True) for action in content["actions"]):
            print(f"automation {_write_automation(content)}: {content['name']}")


def serve() -> None:
    """Run the deployments of prefect.yaml from this process, on their schedules, until it is ended.

    The schedules stay active when it ends: what was due meanwhile is late, and runs when it is started again.
    """
    _require_server()
    import prefect
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.flows import load_flow_from_entrypoint

    deployments = []
    for entry in yaml.safe_load(_deployments_file().read_text())["deployments"]:
        flow: Any = load_flow_from_entrypoint(entry["entrypoint"])
        deployments.append(
            flow.to_deployment(
                name=entry["name"],
                description=entry.get("description"),
                tags=entry.get("tags"),
                parameters=entry.get("parameters"),
                schedules=[_schedule(each) for each in entry.get("schedules", [])],
                triggers=[_trigger(each) for each in entry.get("triggers") or ()],
                concurrency_limit=ConcurrencyLimitConfig(**entry.get("concurrency_limit", {"limit": 1})),
            )
        )
    _run_from_here([f"{deployment.flow_name}/{deployment.name}" for deployment in deployments])
    prefect.serve(*deployments, pause_on_shutdown=False)


def _deployments_file() -> Path:
    here = Path("prefect.yaml")
    return here if here.is_file() else _PROJECT / "prefect.yaml"


def _require_unhidden() -> None:
    """See that no package of the working folder hides one of layerflow from the workers, which look there first."""
    for name in ("cli", "flows", "layers", "tasks"):
        here = Path(name, "__init__.py")
        if here.exists() and here.resolve().parents[1] != Path(__file__).resolve().parents[1]:
            raise ConfigError(
                f"layerflow has a package {name}, and workers would find {here.absolute()} in its place. Rename that "
                f"folder, such as to my{name}."
            )


def _tell_of_other_settings(file: Path) -> None:
    """Name the settings of retraining deployments that are not those of the working folder's layerflow.yaml."""
    if not PROJECT.is_file():
        return
    wanted = {"config": settings_of(None, RetrainConfig()).model_dump(mode="json")}
    for entry in yaml.safe_load(file.read_text())["deployments"]:
        given = (entry.get("parameters") or {}).get("config")
        if given is not None:
            found = {"config": RetrainConfig.model_validate(given).model_dump(mode="json")}
            if other := [change.field.removeprefix("config.") for change in changes(wanted, found)]:
                print(
                    f"warning: deployment {entry['name']} and {PROJECT} differ in {', '.join(other)}", file=sys.stderr
                )


def _schedule(content: dict[str, Any]) -> Any:
    """A schedule of prefect.yaml as Prefect's own, with all that is said of it."""
    from prefect.schedules import Schedule

    settings = {"timezone": "UTC", **content}
    try:
        if "interval" in settings:
            settings["interval"] = datetime.timedelta(seconds=settings["interval"])
        schedule = Schedule(**settings)
        if not (schedule.cron or schedule.interval or schedule.rrule):
            raise ValueError("it has none of them")
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "A schedule of prefect.yaml must have one of cron, interval (in seconds) and rrule. "
            f"Received: {content} ({' '.join(str(error).split())})"
        ) from error
    return schedule


def _trigger(content: Any) -> Any:
    """A trigger of prefect.yaml as Prefect's own, which takes any field, and any event if it expects none.

    Raises:
        ConfigError: If a field is unknown or wrong, or it would start a run for every event, and so for those of its
            runs too.
    """
    from prefect.events import DeploymentEventTrigger, DeploymentTriggerTypes
    from pydantic import TypeAdapter, ValidationError

    try:
        found = TypeAdapter[Any](DeploymentTriggerTypes).validate_python(content)
        known = [*type(found).model_fields]
        if unknown := [str(field) for field in content if field not in known]:
            raise ValueError(f"no field is called {unknown[0]}{did_you_mean(unknown[0], known)}")
        if isinstance(found, DeploymentEventTrigger) and not found.expect:
            raise ValueError("without expect, every event would start a run")
    except (ValidationError, ValueError) as error:
        why = config_sentence(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            "A trigger of prefect.yaml must be one of Prefect's, such as {type: event, match: {prefect.resource.id: "
            f"layerflow.data.pets}}, expect: [layerflow.data.arrived]}}. Received: {shown(content)} ({why})"
        ) from error
    return found


def _run_from_here(names: list[str]) -> None:
    """Give deployments that `layerflow deploy` made a path: to serve them takes their steps to the code away."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for name in names:
            with contextlib.suppress(ObjectNotFound):
                client.update_deployment(client.read_deployment_by_name(name).id, DeploymentUpdate(path="."))


def _require_server() -> None:
    url = configured_url()
    if url is None:
        raise ServerError(
            "A Prefect server must keep the deployments, and none is configured. Start one with `layerflow ui`, and "
            "set PREFECT_PROFILE=layerflow."
        )
    ensure_answering(url)


def _make_pool() -> None:
    """Create the work pool of local processes, unless it exists."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(_POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=_POOL, type=ProcessWorker.type, base_job_template=template))


def _prefect(*arguments: str) -> int:
    return subprocess.run([_PREFECT, "--no-prompt", *arguments], check=False).returncode


def _save_webhook(url: str) -> str:
    from prefect.blocks.webhook import Webhook

    return str(Webhook(method="POST", url=url).save(_POOL, overwrite=True))


def _find_notification(named: str) -> str:
    """The ID of a notification block that is on the server, named as Prefect does: ``slack-webhook/my-block``."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    kind, _, name = named.partition("/")
    found: Any = None
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        found = client.read_block_document_by_name(name, kind, include_secrets=False)
    if found is None or "notify" not in found.block_schema.capabilities:
        raise ConfigError(
            "--notify must name a notification block of the server, such as slack-webhook/my-block. Received: "
            f"{printed(named)}; create it in the UI under Blocks, or see `prefect block ls`."
        )
    return str(found.id)


def _write_automation(content: dict[str, Any]) -> str:
    """Create the automation, or bring the one of its name up to date; says which."""
    from prefect.automations import Automation

    wanted = Automation.model_validate(content)
    try:
        there: Any = Automation.read(name=wanted.name)
        wanted.id = there.id
    except ValueError:  # Prefect raises it if the automation is missing
        wanted.create()
        return "created"
    wanted.update()
    return "updated"
