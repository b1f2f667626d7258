"""`layerflow doctor`, in processes of its own where TensorFlow or Prefect answer."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cli import doctor
from layerflow import extras
from layerflow.errors import ServerError
from layerflow.remote import bucket
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig
from tests.command import layerflow
from tests.made_presets import write_preset
from tests.object_store import Proxy

ROOT = Path(__file__).resolve().parents[2]
THINGS = ["versions", "devices", "store", "dataset", "prefect", "locks"]


@pytest.mark.process
def test_a_healthy_machine_gets_a_line_a_thing_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    done = layerflow("doctor", store=tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", thing] for thing in THINGS]
    for line, part in zip(
        lines,
        [
            f"tensorflow {metadata.version('tensorflow')}",
            "training runs on",
            f"{tmp_path}/store can be written",
            "digits: made on this machine",
            "no server is configured: each run starts one of its own",
            "no lock is held",
        ],
        strict=True,
    ):
        assert part in line
    assert [*(tmp_path / "store").iterdir()] == []


@pytest.mark.process
def test_a_held_lock_is_shown_with_its_holder_and_is_no_failure(tmp_path: Path) -> None:
    """The holder is a process of its own, which is shown by its command line."""
    hold = "import sys; from layerflow import store\nwith store.locked('training-abc'): print(flush=True), input()"
    environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        done = layerflow("doctor", "--json", store=tmp_path)
        holder.communicate("\n")
    assert (done.returncode, done.stderr) == (0, "")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert list(findings) == THINGS
    assert findings["locks"]["level"] == "warn"
    who = f"process {holder.pid} ({sys.executable}" if Path("/proc/locks").exists() else "a process that"
    assert f"training-abc is held by {who}" in findings["locks"]["detail"]
    assert {finding["level"] for name, finding in findings.items() if name != "locks"} == {"ok"}


@pytest.mark.process
def test_everything_that_must_be_mended_is_said_at_once_with_status_2(tmp_path: Path) -> None:
    """In a process of its own, whose exit status and streams are what is claimed."""
    file = tmp_path / "file"
    file.touch()
    done = layerflow(
        *("doctor", "--data.name", "mnist", "--data.mirror", str(tmp_path)),
        store=file,
        PREFECT_API_URL="http://127.0.0.1:9/api",
    )
    assert done.returncode == 2
    failed = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("fail")}
    assert f"The store {file} must be a folder that can be written" in failed["store"]
    assert re.search(rf"The mirror must hold {tmp_path}/mnist/\S+-ubyte\.gz, which is not there", failed["dataset"])
    assert "A Prefect server must answer at http://127.0.0.1:9/api" in failed["prefect"]
    assert done.stderr == (
        "layerflow: This machine must have all that a run needs. Fix store, dataset, prefect as described above.\n"
    )


def test_a_server_that_takes_the_call_and_never_answers_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        monkeypatch.setattr(doctor, "_ANSWER_SECONDS", 0.2)
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ServerError, match="timed out"):
            doctor._prefect()
        silent.settimeout(0)
        silent.accept()
        with pytest.raises(BlockingIOError):  # it was called once: a second call would come after seconds of back-off
            silent.accept()


def test_a_version_that_pyproject_does_not_allow_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "3.9.1" if name == "keras" else real(name))
    level, detail = doctor._versions()
    assert level == "fail"
    assert detail.startswith("layerflow needs keras<4,>=3.15 (here: 3.9.1). `make setup`")


def test_the_packages_of_an_extra_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def without_ray(name: str) -> str:
        if "ray" in name:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without_ray)
    assert doctor._versions()[0] == "ok"


def test_a_disk_that_is_nearly_full_is_a_warning(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 2**29))
    level, detail = doctor._store()
    assert level == "warn"
    assert "0.5 GiB are free on its disk. Make room" in detail


def test_what_nobody_foresaw_is_a_line_too_and_the_others_are_still_said(
    monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    def broken() -> tuple[str, str]:
        raise ImportError("libcudart.so.12:\n cannot open")

    monkeypatch.setattr(doctor, "_devices", broken)
    found = {finding.name: finding for finding in doctor._findings(DataConfig())}
    assert found["devices"][1:] == ("fail", "ImportError: libcudart.so.12: cannot open")
    assert list(found) == THINGS


def test_the_weights_that_are_missing_are_named(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_devices", lambda: ("ok", ""))
    data = DataConfig(mirror=tmp_path)
    model = ModelConfig(name="applications:MobileNetV3Small", weights="imagenet")
    name = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    found = {finding.name: finding for finding in doctor._findings(data, model)}
    assert list(found) == [*THINGS[:4], "weights", *THINGS[4:]]
    assert found["weights"].level == "fail"
    assert f"The mirror must hold {tmp_path}/keras/{name}, which is not there" in found["weights"].detail
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / name).touch()
    found = {finding.name: finding for finding in doctor._findings(data, model)}
    assert found["weights"][1:] == ("ok", f"imagenet: {tmp_path}/keras/{name}, in the mirror")


def test_the_preset_or_the_package_that_is_missing_is_named(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras_hub", reason="KerasHub is not installed: make hub")
    monkeypatch.setattr(doctor, "_devices", lambda: ("ok", ""))
    data, model = DataConfig(mirror=tmp_path), ModelConfig(name="hub:tiny")
    found = {finding.name: finding for finding in doctor._findings(data, model)}
    assert found["weights"].level == "fail"
    assert f"The mirror must hold {tmp_path}/keras_hub/tiny/config.json, which is" in found["weights"].detail
    folder = write_preset(tmp_path / "keras_hub" / "tiny")
    found = {finding.name: finding for finding in doctor._findings(data, model)}
    assert found["weights"][1:] == ("ok", f"hub:tiny: all new; the preset from {folder}, in the mirror")
    real = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "keras_hub" else real(name))
    found = {finding.name: finding for finding in doctor._findings(data, model)}
    assert "needs KerasHub, which is not installed; pip install 'layerflow[hub]'" in found["weights"].detail


@pytest.mark.process
def test_a_bucket_is_written_to_and_left_as_it_was(endpoint: Proxy, empty_store: Path) -> None:
    """The S3 server is a process of its own."""
    findings = {each.name: each for each in doctor._findings(DataConfig())}
    assert findings["remote"].level == "ok"
    assert findings["remote"].detail.endswith("can be read and written")
    lake = bucket.in_force()
    assert lake
    assert lake.names(".probes") == []
    endpoint.fail("403")
    findings = {each.name: each for each in doctor._findings(DataConfig())}
    assert findings["remote"].level == "fail"
    assert "and it answered 403" in findings["remote"].detail


@pytest.mark.process
def test_a_service_that_ignores_conditions_is_refused(
    endpoint: Proxy, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The S3 server is a process of its own."""
    monkeypatch.setattr(bucket.Bucket, "swap", lambda self, path, content, tag: tag)
    level, detail = doctor._remote()
    assert level == "fail"
    assert "must compare and swap objects" in detail
