"""The Dockerfile and the deployments for Docker and Kubernetes, as far as they can be tried without either."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.templating import apply_values

ROOT = Path(__file__).resolve().parent.parent
POOLS = {"docker": ROOT / "pools" / "docker.yaml", "kubernetes": ROOT / "pools" / "kubernetes.yaml"}
JOB = json.loads((ROOT / "pools" / "kubernetes-job.json").read_text())


def copied() -> list[str]:
    """What the Dockerfile copies from the project."""
    instructions = re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [source for instruction in instructions for source in instruction.split()[:-1]]


def with_marks_away(file: Path, mark: str) -> dict[str, Any]:
    """The deployments of ``file`` with the example behind ``# <mark>`` in force."""
    return yaml.safe_load(file.read_text().replace(f"# {mark}", mark))


def test_the_image_gets_every_room_and_nothing_that_is_not_there() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    rooms = {pattern.removesuffix("*") for pattern in found["include"]}
    assert rooms <= set(copied())
    for source in copied():
        assert (ROOT / source).exists(), source


def test_what_the_image_gets_is_not_ignored_and_all_else_is() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert sorted(let_in) == sorted(copied())
    assert not any(fnmatch.fnmatch(source, line) for source in copied() for line in lines[1:] if line[0] != "!")


def test_the_image_runs_as_the_user_that_the_pods_run_as_and_keeps_the_store_where_they_mount_it() -> None:
    text = (ROOT / "Dockerfile").read_text()
    pod = JOB["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    user = int(re.findall(r"^USER (\d+)$", text, re.MULTILINE)[-1])
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) == (user, user)
    assert f"--uid {user}" in text
    mount = next(each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "data")
    assert f"LAYERFLOW_STORE={mount['mountPath']}/store" in text


def test_a_pod_can_do_no_more_than_a_run_needs() -> None:
    """What the profile `restricted` of Kubernetes' Pod Security Standards asks for, and a root that is read-only."""
    pod = JOB["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    volumes = {each["name"]: each for each in pod["volumes"]}
    writable = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert set(writable) == {"/data", "/home/layerflow", "/tmp"}
    assert all(volume.get("emptyDir") == {} for path, volume in writable.items() if path != "/data")
    variables = yaml.safe_load(POOLS["kubernetes"].read_text())["definitions"]["work_pool"]["job_variables"]
    assert any(variables["env"]["PREFECT_HOME"].startswith(path) for path in writable)


def test_nothing_that_gets_into_the_image_can_change_under_its_name() -> None:
    """The base by its digest, every package by its hash, extras included."""
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    installs = re.findall(r"pip install ([^;&\n]+)", text)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or ("--no-deps" in options and "--editable ." in options), options
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("requirements", *(f"requirements-{extra}" for extra in (*extras, "docs"))):
        lock = (ROOT / f"{name}.lock").read_text()
        pins = re.split(r"^(?=[a-z])", lock, flags=re.MULTILINE | re.IGNORECASE)[1:]
        assert pins
        for pin in pins:  # with the lines below it, up to the next
            assert re.match(r"[\w.\[\]-]+==", pin), pin
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", pin), pin


def test_an_extra_adds_to_the_lock_and_changes_nothing_in_it() -> None:
    names = [
        set(re.findall(r"^([a-z][\w.-]*)==", (ROOT / f"requirements{extra}.lock").read_text(), re.MULTILINE))
        for extra in ("", "-cuda", "-kubernetes")
    ]
    assert "prefect-kubernetes" in names[2]
    assert any(name.startswith("nvidia-") for name in names[1])
    assert not names[0] & (names[1] | names[2])


@pytest.mark.parametrize("kind", POOLS)
def test_every_deployment_is_one_of_prefect_yaml_in_another_pool(kind: str) -> None:
    file = yaml.safe_load(POOLS[kind].read_text())
    usual = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [{**each, "work_pool": {}, "description": ""} for each in file["deployments"]] == [
        {**each, "work_pool": {}, "description": ""} for each in usual
    ]
    assert file["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "/app"}}]
    assert "WORKDIR /app" in (ROOT / "Dockerfile").read_text()
    for deployment in file["deployments"]:
        assert deployment["work_pool"]["name"] == f"layerflow-{kind}"
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        load_flow_from_entrypoint(deployment["entrypoint"]).validate_parameters(deployment["parameters"])


@pytest.mark.parametrize(
    "mark",
    [
        "nothing",
        "gpus: 1",
        "LAYERFLOW_MIRROR: /data/mirror",
        "LAYERFLOW_REMOTE: s3://",
        "data_disk: {",
        "env_from: [",
        "service_account_name: layerflow",
    ],
)
def test_the_job_variables_for_kubernetes_are_what_its_template_takes(mark: str) -> None:
    schema = {**JOB["variables"], "additionalProperties": False}
    for deployment in with_marks_away(POOLS["kubernetes"], mark)["deployments"]:
        variables = deployment["work_pool"]["job_variables"]
        jsonschema.validate(variables, schema)
        assert mark == "nothing" or mark.split(":")[0] in {**variables, **variables["env"]}


@pytest.mark.parametrize(
    ("given", "volume"),
    [
        ({"data_claim": {"claimName": "c"}}, {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}),
        ({"data_disk": {"sizeLimit": "50Gi"}}, {"name": "data", "emptyDir": {"sizeLimit": "50Gi"}}),
    ],
)
def test_a_pod_has_a_claim_or_a_disk_of_its_own(given: dict[str, object], volume: dict[str, object]) -> None:
    made = apply_values(JOB["job_configuration"], {"image": "i", **given})["job_manifest"]["spec"]["template"]["spec"]
    assert made["volumes"][0] == volume
    assert "envFrom" not in made["containers"][0]


def test_every_variable_of_the_template_is_declared_and_used() -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(JOB["job_configuration"])))
    assert used == set(JOB["variables"]["properties"])


@pytest.mark.parametrize("mark", ["LAYERFLOW_MIRROR: /data/mirror", "container_create_kwargs: {"])
def test_the_examples_for_docker_are_yaml_once_their_marks_are_away(mark: str) -> None:
    variables = with_marks_away(POOLS["docker"], mark)["deployments"][0]["work_pool"]["job_variables"]
    assert mark.split(":")[0] in {**variables, **variables["env"]}
