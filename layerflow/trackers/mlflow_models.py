"""A run's model in MLflow: logged with the run, and registered once it is published."""

import importlib.metadata
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerflow.checksums import DIGESTS, EXTRA, damage, sha256
from layerflow.errors import DamagedError
from layerflow.extensions import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as Recorded
    from mlflow.entities.model_registry import ModelVersion

#: By which a model is known in MLflow: the SHA-256 of its list of digests, and its number in layerflow's registry.
DIGEST, VERSION = "layerflow.export_digest", "layerflow.version"
#: The alias of the live version.
LIVE = "champion"
#: Values of an input example, which MLflow writes as text.
_MOST_VALUES = 20_000


def digest_of(saved_model: Path) -> str:
    """The digest of an export whose every file is as its list of digests says.

    Raises:
        DamagedError: If one is not.
    """
    if found := damage(saved_model):
        raise DamagedError(
            f"The export in {saved_model} must be as it was written: {found}. Run layerflow retrain again."
        )
    return sha256(saved_model / DIGESTS)


def logged(client: "MlflowClient", experiment: str, digest: str, run: str | None = None) -> "LoggedModel | None":
    """The oldest logged model with a digest, of one run or of any in the experiment."""
    wanted = f"tags.`{DIGEST}` = '{digest}'" + (f" AND source_run_id = '{run}'" if run else "")
    found = client.search_logged_models([experiment], wanted)
    return min(found, key=lambda model: (model.creation_timestamp, model.model_id), default=None)


def log_model(client: "MlflowClient", recorded: "Recorded", run: Run, digest: str) -> "LoggedModel":
    """Log the SavedModel with its run, unless it is already: as code and files that need no layerflow."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    assert run.saved_model
    experiment, run_id = recorded.info.experiment_id, recorded.info.run_id
    model = logged(client, experiment, digest, run_id)
    if model is None:
        name = re.sub(r"[/:.%\"']", "-", run.name)  # which MLflow takes in no name
        model = client.create_logged_model(experiment, name, run_id, {DIGEST: digest}, model_type="classifier")
    if model.status != LoggedModelStatus.READY:  # a process that died in uploading left it so
        with tempfile.TemporaryDirectory() as folder:
            _save(model, run.saved_model, Path(folder) / "model")
            client.log_model_artifacts(model.model_id, f"{folder}/model")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, len(run.epochs))])
        model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model


def _save(model: "LoggedModel", saved_model: Path, folder: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    contract = json.loads((saved_model / EXTRA / "contract.json").read_text(encoding="utf-8"))
    outputs = [
        TensorSpec(np.dtype("float32"), (-1, len(contract["classes"])), "probabilities"),
        TensorSpec(np.dtype("int64"), (-1,), "class_id"),
        *([TensorSpec(np.dtype("bool"), (-1,), "accepted")] if contract.get("threshold") is not None else []),
    ]
    mlflow.pyfunc.save_model(
        folder,
        python_model=Path(__file__).with_name("mlflow_model.py"),
        artifacts={"saved_model": str(saved_model)},
        signature=ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *contract["image_shape"]))]), Schema(outputs)
        ),
        input_example=_example(saved_model),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("tensorflow", "numpy", "pandas")],
        mlflow_model=Model(
            model.artifact_location, model.source_run_id, model_uuid=model.model_id, model_id=model.model_id
        ),
    )


def _example(saved_model: Path) -> np.ndarray | None:
    """The first golden image, unless it is large: ``uint8`` of shape ``(1, height, width, channels)``."""
    with np.load(saved_model / EXTRA / "golden.npz", allow_pickle=False) as golden:
        image: np.ndarray = golden["images"][:1]
    return image if image.size <= _MOST_VALUES else None


def register(
    client: "MlflowClient", name: str, model: "LoggedModel | None", digest: str, version: int
) -> "ModelVersion | None":
    """The registered version of a published one, which is registered unless it is already or there is no model.

    Two processes that register it at once leave one version.

    Args:
        digest: Of the published export.
        version: Its number in layerflow's registry.
    """
    from mlflow.exceptions import MlflowException

    found = _registered(client, name, digest)
    if found is None and model:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {DIGEST: digest, VERSION: str(version)}
        source = f"models:/{model.model_id}"
        made = client.create_model_version(name, source, model.source_run_id, tags, model_id=model.model_id)
        found = _registered(client, name, digest) or made
        if found.version != made.version:
            client.delete_model_version(name, made.version)
    elif found and found.tags.get(VERSION) != str(version):  # a rollback gave it a new number
        client.set_model_version_tag(name, found.version, VERSION, str(version))
    return found


def _registered(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name = '{name}' AND tags.`{DIGEST}` = '{digest}'")
    return min(found, key=lambda each: int(each.version), default=None)


def point_at(client: "MlflowClient", name: str, found: "ModelVersion") -> None:
    """Move the alias of the live version to a registered version, unless it is there."""
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(LIVE)) != str(found.version):
        client.set_registered_model_alias(name, LIVE, found.version)
