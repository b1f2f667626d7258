"""A model in other formats: each answers as the SavedModel, in a process that has only its runtime.

Formats are converted, and verified, in processes of their own: a converter may end its process, and a process that has
TensorFlow proves nothing about one that has not.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from layerflow import store
from layerflow.checksums import EXTRA, sha256
from layerflow.converted import FILES, Converted
from layerflow.errors import ConfigError, ProcessKilledError, VerificationError, heals
from layerflow.export import conversion, portable, process
from layerflow.export.verifier.portable import check_loaded
from layerflow.export.verifier.refusal import RefusedError
from layerflow.extras import libraries_of
from layerflow.outcomes import FormatProof, FormatsProof, Retrained
from layerflow.records import ExportRef
from layerflow.registry import formats
from layerflow.settings.gate import GateConfig
from tests.forked import PROGRAMS
from tests.shared import copy_artifact, once

pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not forks of a parent that has imported TensorFlow."""
    monkeypatch.setattr(process, "subprocess", subprocess)


@pytest.fixture(scope="session")
def converted(first_run: Retrained, session_store: Path) -> tuple[Path, Converted]:
    """The first run's export in every format, and as integers of 8 bits that were calibrated on darker images."""

    def make() -> str:
        for folder in (first_run.export.folder, first_run.data.folder):
            copy_artifact(folder, session_store, store.root())
        folder = store.root() / "converted"
        folder.mkdir()
        made = conversion.convert(first_run.export, first_run.data, tuple(FILES), folder)
        np.save(folder / "dark.npy", conversion.calibration_images(first_run.data) // 2)
        export, dark = store.path(first_run.export.saved_model), {"litert_int8": folder / "dark.tflite"}
        assert conversion.convert_all(export, dark, folder / "dark.npy") == {}
        return made.model_dump_json()

    folder, made = once("converted", make)
    return folder / "converted", Converted.model_validate_json(made)


def score(run: Retrained, name: str, file: Path) -> dict:
    return portable.score_format(run.export, run.evaluation, run.data, name, file, sha256(file))


@pytest.mark.parametrize("name", FILES)
def test_it_answers_as_the_saved_model_in_a_process_without_tensorflow(
    name: str, converted: tuple[Path, Converted], first_run: Retrained
) -> None:
    folder, made = converted
    assert made.failed == {}
    report = score(first_run, name, folder / FILES[name])
    assert report["checks"]["isolation"] == (
        "neither TensorFlow nor Keras nor code of the project can be imported; no file of TensorFlow is loaded"
    )
    assert "of 1000 answer the same" in report["checks"]["batches"]
    assert report["test_examples"] == first_run.data.counts["test"]
    assert report["max_difference"] < (0.1 if name == "litert_int8" else 1e-4)
    assert 0 < report["latency_p50_ms"] <= report["latency_p99_ms"]
    proof = FormatProof(name=name, file=FILES[name])
    judged = formats.judged(GateConfig(), proof, report, first_run.evaluation, first_run.verification)
    assert judged.reason is None
    assert judged.runtime.startswith("ONNX Runtime" if name == "onnx" else "LiteRT")


def test_a_process_that_could_import_tensorflow_proves_nothing(
    converted: tuple[Path, Converted], first_run: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link_all(packages: object, folder: Path, libraries: list[str]) -> None:
        for each in Path(libraries[0]).iterdir():
            (folder / each.name).symlink_to(each)

    monkeypatch.setattr(process, "_link", link_all)
    with pytest.raises(VerificationError, match="this process could import tensorflow"):
        score(first_run, "onnx", converted[0] / FILES["onnx"])


def test_a_process_that_has_loaded_tensorflow_says_which_file() -> None:
    with pytest.raises(RefusedError, match=r"TensorFlow is loaded in this process: .*libtensorflow_framework"):
        check_loaded()


def test_a_changed_file_and_one_that_is_no_model_are_refused(
    converted: tuple[Path, Converted], first_run: Retrained, tmp_path: Path
) -> None:
    export, broken = store.path(first_run.export.saved_model), tmp_path / "broken"
    broken.write_bytes(b"no model")
    with pytest.raises(VerificationError, match=r"^model\.onnx is refused: it was changed: expected"):
        portable.inspect_format(export, "onnx", broken, "0")
    for name in ("onnx", "litert"):
        with pytest.raises(VerificationError, match="is refused: the runtime can't load it: "):
            portable.inspect_format(export, name, broken, sha256(broken))


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_a_file_of_another_model_is_refused(
    name: str, converted: tuple[Path, Converted], first_run: Retrained, tmp_path: Path
) -> None:
    export, file = tmp_path / "saved_model", converted[0] / FILES[name]
    shutil.copytree(store.path(first_run.export.saved_model), export)
    golden, contract = export / EXTRA / "golden.npz", export / EXTRA / "contract.json"
    with np.load(golden) as archive:
        other = {**archive, "probabilities": np.roll(archive["probabilities"], 1, axis=-1)}
    np.savez(golden, **other)
    with pytest.raises(VerificationError, match=r"golden examples: answers differ by .* of the trained model"):
        portable.inspect_format(export, name, file, sha256(file))
    contract.write_text(json.dumps({**json.loads(contract.read_text()), "classes": ["a", "b"]}))
    with pytest.raises(VerificationError, match="output probabilities must be float32"):
        portable.inspect_format(export, name, file, sha256(file))


def test_a_bad_quantization_is_left_out_and_the_others_are_kept(
    converted: tuple[Path, Converted], first_run: Retrained, empty_store: Path, session_store: Path, tmp_path: Path
) -> None:
    made = converted[1].model_copy(update={"folder": "converted"})
    shutil.copytree(session_store, empty_store, dirs_exist_ok=True)
    shutil.copytree(converted[0], empty_store / "converted")
    (empty_store / "converted" / FILES["litert_int8"]).unlink()
    dark = empty_store / "converted" / "dark.tflite"
    dark.rename(empty_store / "converted" / FILES["litert_int8"])
    files = {**made.files, "litert_int8": sha256(empty_store / "converted" / FILES["litert_int8"])}
    run, made = first_run, made.model_copy(update={"files": files, "failed": {}})
    proof = formats.prove(GateConfig(), made, run.export, run.evaluation, run.verification, run.data, tmp_path)
    assert [each.name for each in proof.formats if each.reason is None] == ["litert", "onnx"]
    (bad,) = (each for each in proof.formats if each.reason)
    assert bad.reason.startswith("worse than the SavedModel, by the rule of gate.margin 0.0")
    assert bad.test_accuracy < first_run.verification.test_accuracy
    assert bad.size > 0
    assert sorted(file.name for file in (tmp_path / "formats").iterdir()) == ["model.onnx", "model.tflite"]
    assert proof.matches({f"formats/{name}": digest for name, digest in proof.proved.items()})


def test_a_format_that_ends_the_converter_leaves_the_others(
    first_run: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_CONVERTER", PROGRAMS / "dies_in_converting.py")
    wanted = {name: tmp_path / file for name, file in FILES.items()}
    failed = conversion.convert_all(tmp_path, dict(sorted(wanted.items())), tmp_path / "images.npy")
    assert list(failed) == ["litert_int8", "onnx"]
    assert all(reason.startswith("the converter ended with status -6: ") for reason in failed.values())
    assert wanted["litert"].read_bytes() == b"converted"


def test_what_the_converter_refuses_is_a_reason_and_is_not_what_ends_it_for_want_of_room(
    converted: tuple[Path, Converted], first_run: Retrained, tmp_path: Path
) -> None:
    """What a step makes is kept: a reason that goes away must not be a part of it."""
    export, images = store.path(first_run.export.saved_model), tmp_path / "images.npy"
    np.save(images, np.zeros((3, 5), np.uint8))
    failed = conversion.convert_all(export, {"litert_int8": tmp_path / "model"}, images)
    assert failed["litert_int8"].startswith("RuntimeError: ")
    with pytest.raises(ProcessKilledError, match=r"It ended with status 1: .*Error: .*no_folder"):
        conversion.convert_all(export, {"litert": tmp_path / "no_folder" / "model"}, images)


@pytest.mark.parametrize("status", [-9, -15])
def test_a_converter_that_is_killed_is_tried_again(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], status, "", "")
    monkeypatch.setattr(conversion.subprocess, "run", lambda *arguments, **options: done)
    with pytest.raises(ProcessKilledError, match=f"It ended with status {status}: no message") as caught:
        conversion.convert_all(tmp_path, {"onnx": tmp_path / "model"}, tmp_path / "images.npy")
    assert heals(caught.value)


def test_a_quantized_model_with_a_threshold_and_one_that_is_wrong_are_refused(
    converted: tuple[Path, Converted], first_run: Retrained, tmp_path: Path
) -> None:
    export, file = tmp_path / "saved_model", converted[0] / FILES["litert_int8"]
    shutil.copytree(store.path(first_run.export.saved_model), export)
    contract = export / EXTRA / "contract.json"
    told = contract.read_text()
    contract.write_text(json.dumps({**json.loads(told), "threshold": 0.9}))
    with pytest.raises(VerificationError, match=r"the threshold of export\.abstain would not hold"):
        portable.inspect_format(export, "litert_int8", file, sha256(file))
    contract.write_text(told)
    with np.load(export / EXTRA / "golden.npz") as archive:
        other = {**archive, "probabilities": np.roll(archive["probabilities"], 1, axis=-1)}
    np.savez(export / EXTRA / "golden.npz", **other)
    with pytest.raises(VerificationError, match="golden examples get the class of the trained model"):
        portable.inspect_format(export, "litert_int8", file, sha256(file))


def test_without_its_libraries_a_format_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert libraries_of(()) == {}
    assert set(libraries_of(("litert", "onnx"))) == {"ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        libraries_of(("onnx",))
    assert str(caught.value) == (
        "export.formats onnx needs onnxruntime, which is not installed; pip install 'layerflow[onnx]', or in a clone: "
        "make onnx."
    )


def test_the_proof_counts_no_format_that_is_left_out() -> None:
    formats_ = (FormatProof(name="onnx", file="model.onnx", digest="a"), FormatProof(name="litert", reason="why"))
    proof = FormatsProof(export_digest=ExportRef.model_construct(digest="").digest, formats=formats_)
    assert proof.proved == {"model.onnx": "a"}
