"""Temperature and threshold, from the validation images to what ships: figures, graph, verification, registry."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from layerflow import artifacts, store
from layerflow.cards import evaluation as evaluation_card
from layerflow.cards import export as export_card
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.errors import ConfigError
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model, verification
from layerflow.models.networks import load_model
from layerflow.outcomes import Promotion
from layerflow.records import DatasetRef, Evaluation, ExportRef, TrainedRef, Verification
from layerflow.registry import layout, versions
from layerflow.registry.first_weights import first_weights
from layerflow.registry.receipt import Challenger, changes
from layerflow.registry.rollback import roll_back
from layerflow.settings.export import AbstainConfig, ExportConfig
from tests.layerflow.conftest import VERIFIER
from tests.shared import copy_artifact, once

NAME, ERROR = "mlp-digits", 0.05
CONFIG = ExportConfig(calibrate="temperature", abstain=AbstainConfig(error=ERROR))


def as_it_ships(base: Challenger, key: str, config: ExportConfig) -> Challenger:
    """The same trained network, evaluated, exported and verified with other settings of the export."""
    trained, data = base.trained, base.data
    scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, data, folder, config))
    exported = artifacts.make(
        "export_model", key, ExportRef, lambda folder: saved_model.export(trained, data, folder, scored.serving)
    )
    proved = artifacts.make(
        "verify_export", key, Verification, lambda folder: verification.verify(exported, scored, data, VERIFIER)
    )
    return base._replace(evaluation=scored, export=exported, verification=proved)


@pytest.fixture(scope="module")
def abstaining(contenders: dict[str, Challenger], session_store: Path) -> Challenger:
    """The poor contender, which makes mistakes on the validation images too, calibrated and with a threshold."""
    poor = contenders["poor"]

    def make() -> str:
        for record in (poor.data, poor.trained):
            copy_artifact(record.folder, session_store, store.root())
        return as_it_ships(poor, "abstaining", CONFIG).evaluation.model_dump_json()

    folder, _ = once("abstaining", make)
    shutil.copytree(folder, session_store, dirs_exist_ok=True)
    made = {
        step: artifacts.check(session_store / step / "abstaining")
        for step in ("evaluate_model", "export_model", "verify_export")
    }
    return poor._replace(
        evaluation=made["evaluate_model"], export=made["export_model"], verification=made["verify_export"]
    )


def logits_of(trained: TrainedRef, data: DatasetRef, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Of a split, by Keras alone, in ``float64``."""
    images, labels = images_and_labels(data, split)
    return load_model(trained.model, store.path(trained.keras))(np.array(images)).numpy().astype(np.float64), labels


def answers_of(export: ExportRef, data: DatasetRef) -> dict[str, np.ndarray]:
    loaded = tf.saved_model.load(str(store.path(export.saved_model)))
    images = tf.constant(np.array(images_and_labels(data, "test")[0]))
    return {name: each.numpy() for name, each in loaded.signatures["serving_default"](images=images).items()}


def test_what_ships_is_the_softmax_of_divided_logits_and_the_same_decisions(
    abstaining: Challenger, contenders: dict[str, Challenger]
) -> None:
    data, serving = abstaining.data, abstaining.evaluation.serving
    assert serving.temperature != 1
    logits, _ = logits_of(abstaining.trained, data, "test")
    answers = answers_of(abstaining.export, data)
    expected = scipy_softmax(logits / serving.temperature, axis=-1)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert serving.threshold is not None
    clear = np.abs(expected.max(axis=-1) - serving.threshold) > 1e-5
    np.testing.assert_array_equal(answers["accepted"][clear], expected.max(axis=-1)[clear] >= serving.threshold)
    assert 0 < answers["accepted"].sum() < len(logits)
    as_before = answers_of(contenders["poor"].export, data)
    assert as_before.keys() == {"probabilities", "class_id"}
    np.testing.assert_array_equal(answers["class_id"], as_before["class_id"])
    predictions = np.load(store.path(abstaining.evaluation.predictions), allow_pickle=False)
    np.testing.assert_allclose(predictions, answers["probabilities"], atol=1e-5)


def test_temperature_and_threshold_are_those_of_the_validation_images(abstaining: Challenger) -> None:
    serving = abstaining.evaluation.serving
    logits, labels = logits_of(abstaining.trained, abstaining.data, "validation")
    rows, n = np.arange(len(labels)), len(labels)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=-1)[rows, labels].mean())

    assert loss(serving.temperature) <= min(loss(serving.temperature * each) for each in (0.99, 1.01))
    confidence = scipy_softmax(logits / serving.temperature, axis=-1).max(axis=-1)
    wrong = logits.argmax(axis=-1) != labels
    assert serving.threshold is not None

    def bound(threshold: float) -> float:
        return float(((confidence >= threshold) & wrong).sum() + 1) / (n + 1)

    assert bound(serving.threshold) <= ERROR < bound(serving.threshold - 2e-6)  # rounding of float32 beside a millionth


def test_the_figures_are_those_of_the_shipped_answers(
    abstaining: Challenger, contenders: dict[str, Challenger]
) -> None:
    evaluation, plain = abstaining.evaluation, contenders["poor"].evaluation
    answers, labels = answers_of(abstaining.export, abstaining.data), images_and_labels(abstaining.data, "test")[1]
    wrong, accepted = answers["class_id"] != labels, answers["accepted"]
    found, n = evaluation.abstention, abstaining.data.counts["validation"]
    assert found
    assert (found.asked, found.images) == (ERROR, n)
    assert found.coverage == accepted.mean()
    assert found.error == wrong[accepted].mean()
    assert found.wrong == (wrong & accepted).mean()
    worth = evaluation.calibrated
    assert worth
    chosen = answers["probabilities"][np.arange(len(labels)), labels].astype(np.float64)
    assert worth.loss_after == evaluation.loss == pytest.approx(-np.log(chosen).mean(), rel=1e-4)
    assert worth.loss_before == plain.loss
    assert evaluation.accuracy == plain.accuracy
    accepted_in_service = f", {accepted.sum()} of them are accepted"
    assert [each.detail for each in abstaining.verification.checks if each.detail.endswith(accepted_in_service)]


def test_the_defaults_evaluate_and_export_as_before(contenders: dict[str, Challenger]) -> None:
    good = contenders["good"]
    assert (good.evaluation.calibrated, good.evaluation.abstention) == (None, None)
    contract = json.loads((store.path(good.export.saved_model) / EXTRA / "contract.json").read_text())
    assert contract.keys() == {"image_shape", "classes", "dataset", "model", "image_bytes", "embedding"}
    old = good.evaluation.model_dump(exclude={"serving", "calibrated", "abstention"})
    assert Evaluation.model_validate(old) == good.evaluation, "a record of an earlier layerflow"


def test_image_files_get_the_answers_of_their_pixels_with_names_and_features(abstaining: Challenger) -> None:
    data, folder = abstaining.data, store.path(abstaining.export.saved_model)
    loaded, images = tf.saved_model.load(str(folder)), np.array(images_and_labels(data, "test")[0][:50])
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    plain = loaded.signatures["serving_default"](images=tf.constant(images))
    answers = loaded.signatures["image_bytes"](image_bytes=files)
    for name, expected in plain.items():
        np.testing.assert_array_equal(answers[name], expected)
    classes = (folder / EXTRA / "labels.txt").read_text().splitlines()
    assert classes == list(data.classes)
    assert [label.decode() for label in answers["label"].numpy()] == [classes[each] for each in answers["class_id"]]
    features = loaded.signatures["embedding"](images=tf.constant(images))["embedding"].numpy()
    network = load_model(abstaining.trained.model, store.path(abstaining.trained.keras))
    weights, bias = network.get_weights()[-2:]
    np.testing.assert_allclose(features @ weights + bias, network(images), atol=1e-4)
    assert abstaining.export.signatures == ("image_bytes", "embedding")
    assert "CMYK JPEG" in abstaining.export.refused_files


def test_the_contract_and_the_golden_examples_tell_of_both(abstaining: Challenger) -> None:
    extra = store.path(abstaining.export.saved_model) / EXTRA
    serving = abstaining.evaluation.serving
    contract = json.loads((extra / "contract.json").read_text())
    assert (contract["temperature"], contract["threshold"]) == (serving.temperature, serving.threshold)
    with np.load(extra / "golden.npz", allow_pickle=False) as golden:
        accepted = golden["probabilities"].max(axis=-1) >= np.float32(serving.threshold)
        np.testing.assert_array_equal(golden["accepted"], accepted)


def test_the_cards_tell_what_was_gained(abstaining: Challenger, tmp_path: Path) -> None:
    evaluation = abstaining.evaluation
    shutil.copy(store.path(evaluation.predictions), tmp_path)
    evaluation_card.write_card(evaluation, abstaining.trained, abstaining.data, tmp_path)
    card = (tmp_path / "card.md").read_text()
    worth, found = evaluation.calibrated, evaluation.abstention
    assert worth
    assert found
    assert f"expected calibration error {worth.ece_after:.4f}." in card
    assert f"| expected calibration error | {worth.ece_before:.4f} | {worth.ece_after:.4f} |" in card
    assert f"| log loss | {worth.loss_before:.4f} | {worth.loss_after:.4f} |" in card
    assert f"| accepted and wrong, of all | {found.wrong:.2%} |" in card
    export_card.write_card(abstaining.verification, abstaining.export, tmp_path)
    card = (tmp_path / "card.md").read_text()
    assert "| output | `accepted` | bool | (batch,) |" in card
    assert f"divided by {evaluation.serving.temperature:g} before the softmax" in card


def test_too_few_validation_images_are_a_sentence(contenders: dict[str, Challenger], tmp_path: Path) -> None:
    good = contenders["good"]
    with pytest.raises(ConfigError, match=r"error 0\.001 needs at least 999 validation images\. There are \d+; raise"):
        evaluate(good.trained, good.data, tmp_path, ExportConfig(abstain=AbstainConfig(error=0.001)))


@pytest.fixture
def published(
    decide: Callable[..., Promotion], abstaining: Challenger, shelf: Path, session_store: Path
) -> list[Promotion]:
    """Version 1 without temperature and threshold, version 2 the same network with both."""
    for record in (abstaining.export, abstaining.trained):
        copy_artifact(record.folder, session_store, shelf)
    return [decide("poor"), decide(abstaining)]


def test_calibration_makes_another_model_which_is_compared_and_published_once(
    published: list[Promotion], decide: Callable[..., Promotion], abstaining: Challenger
) -> None:
    first, second = published
    assert (first.code, second.code) == ("promoted_first", "promoted_not_worse")
    assert second.comparison
    assert second.comparison.difference == 0
    assert decide(abstaining).code == "unchanged"
    back = decide("poor")  # and the other way: the champion has `accepted`, the challenger does not
    assert back.code == "promoted_not_worse"
    receipt = json.loads(store.path(second.receipt).read_text())
    assert receipt["evaluation"]["serving"] == abstaining.evaluation.serving.model_dump()
    assert receipt["evaluation"]["abstention"]["asked"] == ERROR
    one, two = (versions.receipt_of(NAME, number) for number in (1, 2))
    assert one
    assert two
    fields = {change.field for change in changes(one, two, figures=True)}
    assert {"evaluation.serving.temperature", "evaluation.serving.threshold", "evaluation.loss"} <= fields


def test_a_version_with_a_threshold_is_rolled_back_restored_and_started_from(
    published: list[Promotion], decide: Callable[..., Promotion], abstaining: Challenger, shelf: Path
) -> None:
    assert [versions.damage(NAME, number) for number in (1, 2)] == [None, None]
    assert roll_back(NAME, verifier=VERIFIER).restored == 1
    assert decide(abstaining).code == "kept_rolled_back"
    assert roll_back(NAME, to=2, verifier=VERIFIER).version == 4
    folder = layout.home(NAME) / "4"
    contract = json.loads((folder / EXTRA / "contract.json").read_text())
    assert contract["threshold"] == abstaining.evaluation.serving.threshold
    assert "accepted bool" in verification.inspect(folder, VERIFIER)["checks"]["contract"]
    weights = first_weights(RetrainConfig.model_validate({"model": {"weights": "champion"}}), (8, 8))
    assert weights
    assert (weights.digest, weights.source) == (abstaining.trained.digest, "mlp-digits@4")
    assert (folder / DIGESTS).is_file()
