"""The keys under which steps are found again."""

import inspect
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import get_type_hints

import pytest

import tasks
from layerflow import extras
from layerflow.config import RetrainConfig
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.serving import Serving
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.export import AbstainConfig, ExportConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.gate import RegistryConfig, SignConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.weights import FirstWeights, PresetFiles
from tasks import build_model, evaluate_model, export_model, load_data, train_model
from tasks.caching import key_of

DATA = DatasetRef.model_construct(digest="data")
MODEL = ModelRef.model_construct(name="mlp", digest="model")
TRAINED = TrainedRef.model_construct(model="mlp", digest="trained")
INPUTS = {
    load_data: {"config": DataConfig()},
    build_model: {"config": ModelConfig(), "data": DATA, "seed": 0, "weights": None},
    train_model: {
        "config": TrainingConfig(),
        "augment": AugmentConfig(),
        "finetune": FinetuneConfig(),
        "model": MODEL,
        "data": DATA,
    },
    evaluate_model: {"config": ExportConfig(), "trained": TRAINED, "data": DATA},
    export_model: {"trained": TRAINED, "serving": Serving(), "data": DATA},
}


@pytest.mark.parametrize("step", INPUTS, ids=lambda step: step.name)
def test_threads_and_determinism_are_in_the_key_of_each_step_whose_bits_they_change(step: object) -> None:
    def key(**devices: object) -> str:
        return key_of(step.cache_policy.work, {**INPUTS[step], "devices": DevicesConfig(**devices)})

    computes = step in (train_model, evaluate_model, export_model)
    assert (key(threads=1) != key(threads=2)) == computes
    assert (key(threads=1) != key()) == computes
    assert (key(deterministic=True) != key()) == computes
    assert key(memory_limit_mb=1000) == key()


def test_the_first_weights_count_by_their_content_and_not_by_their_name() -> None:
    def key(name: str, weights: FirstWeights | None) -> str:
        inputs = {**INPUTS[build_model], "config": ModelConfig(weights=name), "weights": weights}
        return key_of(build_model.cache_policy.work, {**inputs, "devices": DevicesConfig()})

    def first(digest: str, name: str) -> FirstWeights:
        return FirstWeights(digest=digest, source=name, file=Path(name))

    assert key("a.keras", first("1", "a.keras")) == key("b.keras", first("1", "b.keras"))
    assert key("champion", first("1", "mlp-digits@1")) != key("champion", first("2", "mlp-digits@2"))
    assert key("champion", first("1", "mlp-digits@1")) != key("none", None)


def test_the_preset_counts_by_what_it_says_and_with_the_version_of_keras_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: ModuleSpec("keras_hub", None))
    real, version = metadata.version, "0.32.0"
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "keras-hub" else real(name))

    def key(name: str = "hub:tiny", preset: PresetFiles | None = None) -> str:
        first = FirstWeights(digest="1", source="1", preset=preset)
        inputs = {**INPUTS[build_model], "config": ModelConfig(name=name), "weights": first}
        return key_of(build_model.cache_policy.work, {**inputs, "devices": DevicesConfig()})

    def preset(digest: str, folder: str) -> PresetFiles:
        return PresetFiles(digest=digest, folder=Path(folder))

    assert key(preset=preset("1", "a")) == key(preset=preset("1", "b")) != key(preset=preset("2", "a"))
    before, others = key(preset=preset("1", "a")), key("applications:VGG16")
    version = "0.33.0"
    assert key(preset=preset("1", "a")) != before
    assert key("applications:VGG16") == others


def test_a_first_weight_without_a_preset_has_the_key_that_it_always_had() -> None:
    assert FirstWeights(digest="1", source="mlp-digits@1").model_dump(mode="json") == {"digest": "1", "classes": None}


def test_an_edit_of_ones_own_loss_is_another_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    config = TrainingConfig(loss="my_losses:squared")

    def key(code: str) -> str:
        (tmp_path / "my_losses.py").write_text(code)
        return key_of(train_model.cache_policy.work, {**INPUTS[train_model], "config": config, "devices": None})

    assert key("def squared(one_hot, logits): ...") != key("def squared(one_hot, logits): return one_hot")


def test_calibration_and_threshold_are_in_the_keys_of_what_they_change() -> None:
    def key(step: object, **inputs: object) -> str:
        return key_of(step.cache_policy.work, {**INPUTS[step], **inputs, "devices": DevicesConfig()})

    scored = {key(evaluate_model, config=ExportConfig(calibrate=each)) for each in ("none", "temperature")}
    scored |= {key(evaluate_model, config=ExportConfig(abstain=AbstainConfig(error=each))) for each in (0.01, 0.02)}
    servings = Serving(), Serving(temperature=1.5), Serving(threshold=0.5), Serving(threshold=0.25)
    shipped = {key(export_model, serving=each) for each in servings}
    assert (len(scored), len(shipped)) == (4, 4)


def test_how_a_version_is_signed_is_in_no_key() -> None:
    """No step with a key gets the settings that say where a private key is kept."""
    cached = [step for step in vars(tasks).values() if hasattr(getattr(step, "cache_policy", None), "work")]
    assert len(cached) >= 9
    for step in cached:
        given = set(get_type_hints(inspect.unwrap(step.cache_policy.work)).values())
        assert not given & {RetrainConfig, RegistryConfig, SignConfig}, step.name
