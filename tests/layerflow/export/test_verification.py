"""Reload verification: what ships is loaded where nothing of ours is, and anything wrong with it is refused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from layerflow import checksums, store
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.data.arrays import where
from layerflow.errors import NotAnExportError, VerificationError
from layerflow.export import process, verification
from layerflow.outcomes import Retrained
from tests import forked


@pytest.fixture
def copy(first_run: Retrained, tmp_path: Path) -> Path:
    """A copy of the exported model, to be tampered with."""
    return Path(shutil.copytree(store.path(first_run.export.saved_model), tmp_path / "model"))


def flip_a_byte(model: Path) -> None:
    file = model / "variables" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def serve_again(model: Path, dtype: tf.DType, change: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Export a module of plain TensorFlow in the model's place, and list its digests as if it were right."""
    module = tf.Module()
    module.loaded = tf.saved_model.load(str(model))
    served = module.loaded.signatures["serving_default"]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), dtype, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = served(images=tf.cast(images, tf.uint8))
        probabilities = change(answers["probabilities"])
        return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=-1)}

    extra = model.with_name("extra")
    shutil.copytree(model / EXTRA, extra)
    tf.saved_model.save(module, str(model.with_name("other")), signatures={"serving_default": serve})
    shutil.rmtree(model)
    model.with_name("other").rename(model)
    shutil.copytree(extra, model / EXTRA)
    contract = json.loads((model / EXTRA / "contract.json").read_text())
    for signature in ("image_bytes", "embedding"):  # as an earlier layerflow exported
        del contract[signature]
    (model / EXTRA / "contract.json").write_text(json.dumps(contract))
    checksums.write_digests(model)


def change_weights(model: Path) -> None:
    serve_again(model, tf.uint8, lambda probabilities: tf.nn.softmax(tf.math.log(probabilities) * 0.9))


def change_signature_dtype(model: Path) -> None:
    serve_again(model, tf.float32, lambda probabilities: probabilities)


def change_golden_outputs(model: Path) -> None:
    with np.load(model / EXTRA / "golden.npz") as archive:
        golden = dict(archive)
    golden["probabilities"] = np.roll(golden["probabilities"], 1, axis=0)
    np.savez(model / EXTRA / "golden.npz", **golden)
    checksums.write_digests(model)


def add_a_file(model: Path) -> None:
    (model / "assets" / "extra.bin").write_bytes(b"?")


def lose_a_file(model: Path) -> None:
    (model / "variables" / "variables.index").unlink()


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (flip_a_byte, "variables.data-00000-of-00001 was changed: expected SHA-256"),
        (change_weights, "answers differ by"),
        (change_signature_dtype, "input images must be uint8"),
        (change_golden_outputs, "golden examples: answers differ"),
        (add_a_file, "assets/extra.bin does not belong to the model"),
        (lose_a_file, "variables.index is missing"),
    ],
)
def test_a_tampered_export_is_refused_with_its_reason(copy: Path, tamper: Callable[[Path], None], reason: str) -> None:
    tamper(copy)
    with pytest.raises(VerificationError, match=reason) as caught:
        verification.inspect(copy)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_consistent_in_itself_but_not_the_evaluated_one_is_refused(
    first_run: Retrained, copy: Path
) -> None:
    serve_again(copy, tf.uint8, lambda probabilities: tf.nn.softmax(tf.math.log(probabilities) * 0.9))
    with np.load(copy / EXTRA / "golden.npz") as archive:
        images = archive["images"]
    loaded = tf.saved_model.load(str(copy))
    answers = loaded.signatures["serving_default"](images=tf.constant(images))
    np.savez(copy / EXTRA / "golden.npz", images=images, probabilities=answers["probabilities"].numpy())
    checksums.write_digests(copy)
    assert verification.inspect(copy)["checks"]["golden"]
    tests = store.path(first_run.data.folder)
    with pytest.raises(VerificationError, match="test split: answers differ"):
        verification.inspect(
            copy,
            test_images=where(first_run.data, "test"),
            test_labels=str(tests / "test_labels.npy"),
            predictions=str(store.path(first_run.evaluation.predictions)),
        )


def test_the_verification_of_a_whole_run_scored_every_test_example(first_run: Retrained) -> None:
    found = first_run.verification
    assert [check.name for check in found.checks] == [
        "isolation",
        "digests",
        "graph",
        "contract",
        "golden",
        "batches",
        "test_split",
        "image_bytes",
        "embedding",
        "again",
    ]
    assert found.test_examples == first_run.evaluation.test_examples
    assert found.test_accuracy == first_run.evaluation.accuracy
    assert found.export_digest == first_run.export.digest
    assert 0 < found.latency_p50_ms <= found.latency_p99_ms
    receipt = json.loads(store.path(first_run.promotion.receipt).read_text())
    assert receipt["verification"]["seed"] == found.seed


@pytest.mark.usefixtures("new_verifier")
def test_a_process_that_could_import_the_layers_proves_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_TRAINING", ("numpy",))
    with pytest.raises(VerificationError, match="this process could import numpy"):
        verification.inspect(copy)


def test_the_model_answers_in_a_plain_python_without_our_layers(first_run: Retrained) -> None:
    """In a new process, not a forked one: what it can import is what is claimed."""
    program, model = forked.PROGRAMS / "asks_a_model.py", store.path(first_run.export.saved_model)
    libraries = sysconfig.get_path("purelib")
    subprocess.run([sys.executable, "-I", "-S", str(program), libraries, str(model)], check=True, cwd="/")


@pytest.mark.usefixtures("new_verifier")
def test_the_published_version_verifies_by_its_own_files_alone(first_run: Retrained, tmp_path: Path) -> None:
    published = shutil.copytree(store.path(first_run.promotion.published or ""), tmp_path / "elsewhere")
    checks = verification.inspect(Path(published))["checks"]
    assert checks["isolation"] == "neither Keras nor code of the project can be imported"
    assert checks["digests"]
    lines = (tmp_path / "elsewhere" / DIGESTS).read_text()
    done = subprocess.run(["sha256sum", "--check", "--quiet"], input=lines, text=True, cwd=published, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("content", [None, {}, {"saved_model.pb": "x"}])
def test_a_folder_that_is_no_export_is_said_to_be_none(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "folder"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(NotAnExportError, match="must be the folder of a SavedModel that layerflow exported"):
        verification.inspect(folder)


def test_the_contract_travels_with_the_model(first_run: Retrained) -> None:
    contract = json.loads((store.path(first_run.export.saved_model) / EXTRA / "contract.json").read_text())
    assert contract["image_shape"] == [8, 8, 1]
    assert contract["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.process
def test_a_process_that_hangs_in_a_model_is_ended_at_once() -> None:
    """A real process, which is stopped: it can't end by itself."""
    verifier = process.Verifier()
    verifier.start()
    assert verifier._process
    number = verifier._process._process.pid
    os.kill(number, signal.SIGSTOP)
    ending = threading.Thread(target=verifier.end)
    ending.start()
    try:
        ending.join(60)
        assert not ending.is_alive()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
