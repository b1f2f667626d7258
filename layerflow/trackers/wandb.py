"""The tracker ``wandb`` of ``extend.trackers``: each training is one offline run, which ``wandb sync`` uploads."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from layerflow import store
from layerflow.cards.report import page
from layerflow.errors import ConfigError, printed
from layerflow.extensions import Run
from layerflow.json_file import read_json
from layerflow.registry import versions
from layerflow.trackers.packages import require, require_variable, variables

#: Without a word of W&B's own, and without telling its makers of errors.
_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
#: What W&B would add by itself: the terminal, the command line, which may hold a password, the clone, and the packages.
_NO_MORE = {
    **{"console": "off", "disable_git": True, "save_code": False, "x_save_requirements": False},
    **{"x_disable_meta": True, "x_disable_machine_info": True, "x_disable_stats": True},
}


def _home() -> Path:
    """Where offline runs go, ``WANDB_DIR/wandb``, as with W&B itself.

    Raises:
        ConfigError: If that says nothing, or can't be written: W&B would take the working folder, or a temporary one.
    """
    named = require_variable("wandb", "WANDB_DIR", "the folder for its offline runs", "~/runs")
    try:
        home = Path(named).expanduser().absolute() / "wandb"
        home.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(home, os.W_OK | os.X_OK) else "Permission denied"
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user who does not exist
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise ConfigError(f"WANDB_DIR must be a folder that can be written. Received: {printed(named)} ({reason}).")
    return home


# As soon as a run begins, and not hours later.
require("wandb", "wandb")
_home()


def track(run: Run) -> None:
    """Write a run as an offline run of Weights & Biases, once its model was decided about.

    All retries, resumptions and repetitions of a training are one run of W&B. The first to end writes it. Where one
    ends differently later, such as with another decision, it writes that alone, and W&B adds it to the first.

    Raises:
        ConfigError: If ``WANDB_DIR`` is no folder that can be written.
        DamagedError: If the version that was published is not as it was.

    Example:
        >>> track(run)
    """
    if run.saved_model is None:  # W&B keeps an offline run in memory for as long as it is open: a kill would lose it
        return
    home, everything = _home(), _digest_of(run)
    ours = home / "layerflow"
    ours.mkdir(exist_ok=True)
    note, working = ours / f"{run.id}.json", ours / run.id
    with FileLock(ours / f"{run.id}.lock"):  # here, since stores can share the folder
        # A run is written aside, then noted, then moved: what dies in between is made up for by the next call.
        noted = read_json(note) if note.exists() else {"recorded": None, "folder": None}
        if noted["folder"] and (whole := working / "wandb" / noted["folder"]).exists():  # a kill in between
            whole.rename(home / whole.name)
        shutil.rmtree(working, ignore_errors=True)
        if noted["recorded"] == everything:
            return
        if noted["recorded"]:
            time.sleep(1)  # W&B names the folder by the second
        working.mkdir()
        written = _write(run, working, with_epochs=noted["recorded"] is None)
        store.sync(written)
        store.write_atomically(note, json.dumps({"recorded": everything, "folder": written.name}).encode())
        written.rename(home / written.name)
        store.sync_entry(home)
        shutil.rmtree(working)


def _digest_of(run: Run) -> str:
    # Later runs find a version unchanged, which is no other decision about it.
    everything = [run.settings, run.figures, run.cards, run.decision["version"] or run.decision]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def _write(run: Run, working: Path, with_epochs: bool) -> Path:
    """Write an offline run into ``working``, and give its folder."""
    cards = {name: text for name, text in run.cards.items() if text}
    with variables(_QUIET):
        import wandb

        settings = wandb.Settings(mode="offline", root_dir=str(working), reinit="create_new", silent=True, **_NO_MORE)
        version = _version(run) if run.decision["version"] else None
        with wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.name,
            id=run.id,
            name=f"{run.name} {run.id[:8]}",
            notes=run.decision["reason"],
            config={**run.settings, "dataset": run.data},
            resume="allow",
            settings=settings,
        ) as recorded:
            for epoch in run.epochs if with_epochs else ():
                recorded.log({name: value for name, value in epoch.items() if name != "epoch"}, int(epoch["epoch"]))
            recorded.log({"report": wandb.Html(page(run.name, cards, ""), inject=False)}, len(run.epochs))
            recorded.summary.update(
                {**run.figures, "decision": run.decision["code"], "version": run.decision["version"]}
            )
            if version:
                recorded.log_artifact(version, aliases=[f"version-{run.decision['version']}"])
            folder = Path(recorded.settings.sync_dir)
    if not any(file.stat().st_size for file in folder.glob("*.wandb")):
        raise OSError(f"{folder} must hold what was recorded. W&B wrote nothing, and says why in {folder}/logs.")
    return folder


def _version(run: Run) -> Any:
    """The published version as an artifact. Its files stay where they are until W&B uploads them."""
    import wandb

    number = run.decision["version"]
    folder = versions.undamaged_folder_of(run.name, number)
    facts = {"version": number, "data_digest": run.data["digest"], **run.figures}
    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", run.name), type="model", metadata=facts)
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        artifact.add_file(str(file), file.relative_to(folder).as_posix(), policy="immutable", skip_cache=True)
    return artifact
