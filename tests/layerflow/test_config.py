"""The settings: bounds, names, and the sentence that a wrong one gets."""

import re
import shlex
from pathlib import Path

import pytest
from pydantic import ValidationError

from layerflow.config import RetrainConfig
from layerflow.errors import config_sentence
from layerflow.settings.data import DataConfig
from layerflow.settings.training import is_maximized


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("training", "epochs", 0),
        ("training", "epochs", -1),
        ("training", "batch_size", 0),
        ("training", "learning_rate", "fast"),
        ("training", "learning_rate", float("nan")),
        ("training", "seed", -1),
        ("data", "validation_fraction", 1.0),
        ("data", "name", "../mnist"),
        ("data", "name", ""),
        ("model", "name", "mpl"),
        ("model", "hidden", [0]),
        ("registry", "name", "../../etc"),
        ("registry", "name", ".hidden"),
        ("gate", "min_accuracy", 1.5),
        ("training", "unknown", 1),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it_and_what_came(group: str, field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({group: {field: value}})
    sentence = config_sentence(caught.value)
    assert f"{group}.{field}" in sentence
    assert f"Received: {value!r}" in sentence or "Received: 0" in sentence
    assert "\n" not in sentence


def test_an_unknown_model_gets_near_matches() -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"model": {"name": "mpl"}})
    assert "did you mean mlp" in config_sentence(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": "adm"}, "training.optimizer: the name of a Keras optimizer, .* \\(did you mean adam"),
        ({"schedule": "Cosine"}, "training.schedule: the name of a Keras schedule, .* \\(did you mean cosinedecay"),
        ({"optimizer": {"config": {}}}, "or its form with `class_name`"),
        ({"optimizer": '{"class_name": "Sdg"}'}, "did you mean sgd"),
    ],
)
def test_an_optimizer_or_schedule_that_keras_does_not_have_is_one_sentence(
    settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"training": settings})
    assert re.search(reason, config_sentence(caught.value))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"loss": "CategoricalCrossentropi"},
            r"training.loss: the name of a Keras loss, .*mymodule:MyLoss \(did you mean",
        ),
        ({"loss": "SparseCategoricalCrossentropy"}, "did you mean categoricalcrossentropy"),
        ({"loss": "os:system"}, "training.loss: a module of your own; it is one of Python's"),
        ({"loss": "a b:c"}, "training.loss: the name of a Keras loss"),
        ({"loss": {"class_name": "CategoricalCrossentropy", "label_smoothing": 0.1}}, "and without 'label_smoothing'"),
        ({"class_weight": "balance"}, "training.class_weight: `balanced`, or a map of class names to weights"),
        ({"class_weight": 3}, "training.class_weight: `balanced`, or a map of class names to weights"),
        ({"class_weight": {}}, "training.class_weight: `balanced`, or a map of class names to weights"),
        ({"class_weight": {"cat": -1}}, "weights from 0 to 1,000,000; that of cat is not one"),
        ({"class_weight": {"cat": float("nan")}}, "weights from 0 to 1,000,000; that of cat is not one"),
        ({"class_weight": {"\udcff": -1}}, r"that of '\\udcff' is not one"),
        ({"loss": {"class_name": "CategoricalHinge", "\udcff": 1}}, r"and without '\\udcff'"),
        (
            {"metrics": [{"class_name": "AUC", "config": {"name": "\udcff"}}] * 2},
            r"two of .*val_\\udcff.* are the same",
        ),
        ({"class_weight": {"cat": "2"}}, "weights from 0 to 1,000,000; that of cat is not one"),
        ({"ema": 1}, "training.ema: input should be less than 1"),
        ({"ema": 0}, "training.ema: input should be greater than 0"),
        ({"ema": 0.9, "optimizer": {"class_name": "SGD", "config": {"use_ema": True}}}, "both are set"),
        ({"warmup_epochs": -1}, "training.warmup_epochs: input should be greater than or equal to 0"),
        ({"warmup_epochs": 5, "epochs": 5}, "fewer warmup_epochs than epochs; 5 of 5 leave nothing after them"),
        ({"callbacks": ["ModelCheckpoint"]}, "the name of a Keras callback, .* or mypackage.mymodule:MyCallback"),
        ({"callbacks": ["EarlyStopping"], "workers": 2}, "callbacks with one worker only"),
        ({"callbacks": ["ReduceLROnPlateau"], "schedule": "CosineDecay"}, "ReduceLROnPlateau beside schedule"),
        ({"callbacks": ["reducelronplateau"], "warmup_epochs": 1}, "ReduceLROnPlateau beside schedule"),
        ({"metrics": ["ACU"]}, r"the name of a Keras metric, .*did you mean auc"),
        ({"metrics": ["AUC", "AUC"]}, "two of .*val_auc, val_auc are the same"),
        ({"metrics": [{"class_name": "AUC", "config": {"name": "loss"}}]}, "two of loss, .* are the same"),
        ({"metrics": "[1, 2"}, "a list of names and JSON objects"),
        ({"monitor": "val_auc"}, "a monitor that is one of loss, accuracy, val_loss, val_accuracy.*; 'val_auc' is not"),
        ({"monitor": 5}, "training.monitor: input should be a valid string"),
    ],
    ids=str,
)
def test_a_wrong_part_of_the_recipe_is_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"training": settings})
    said = config_sentence(caught.value)
    assert re.search(sentence, said)
    assert said.isprintable()


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["RandomFlop"], r"augment.layers.0: the name of a Keras layer for images, .*did you mean randomflip"),
        (["Dense"], "the name of a Keras layer for images"),
        (["mymodule:MyLayer"], "the name of a Keras layer for images"),
        ([{"class_name": "RandomFlip", "mode": "vertical"}], "and without 'mode'"),
        (5, "augment.layers: input should be a valid tuple"),
        (["RandomFlip"] * 33, "at most 32 items"),
    ],
    ids=str,
)
def test_a_wrong_augmentation_is_one_sentence(layers: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"augment": {"layers": layers}})
    said = config_sentence(caught.value)
    assert re.search(sentence, said)
    assert said.isprintable()


def test_metrics_are_named_as_keras_names_them_and_can_be_the_monitor() -> None:
    own = {"class_name": "mynets.scores:Cost", "config": {"name": "cost_error"}}
    settings = {"metrics": ["auc", "TopKCategoricalAccuracy", "KLDivergence", "mynets.scores:regret", own]}
    training = RetrainConfig.model_validate({"training": {**settings, "monitor": "val_cost_error"}}).training
    names = ("auc", "top_k_categorical_accuracy", "kl_divergence", "regret", "cost_error")
    assert training.metric_names == names
    assert training.figures == ("loss", "accuracy", "val_loss", "val_accuracy", *(f"val_{name}" for name in names))
    assert [is_maximized(name) for name in names] == [True, True, False, True, False]


def test_lists_of_names_and_forms_are_taken_from_the_command_line() -> None:
    from cli.commands import app

    form = {"class_name": "RandomRotation", "config": {"factor": 0.1}}
    settings = {
        "augment": {"layers": ["RandomFlip", form]},
        "training": {"metrics": ["AUC"], "callbacks": [{"class_name": "EarlyStopping", "config": {"patience": 3}}]},
    }
    settings["training"] |= {"class_weight": {"a cat": 2.0}, "ema": 0.9, "loss": {"class_name": "BinaryCrossentropy"}}
    config = RetrainConfig.model_validate(settings)
    _, bound, _ = app.parse_args(["retrain", *shlex.split(config.as_flags)], exit_on_error=False)
    assert bound.arguments["settings"] == config
    one = [
        "retrain",
        "--augment.layers",
        "RandomFlip",
        "--training.metrics",
        "AUC",
        "--training.class_weight",
        "balanced",
    ]
    _, bound, _ = app.parse_args(one, exit_on_error=False)
    assert bound.arguments["settings"].augment.layers == ("RandomFlip",)
    assert bound.arguments["settings"].training.metrics == ("AUC",)
    several = ["retrain", "--augment.layers", "RandomFlip", "--augment.layers", "MixUp"]
    _, bound, _ = app.parse_args(several, exit_on_error=False)
    assert bound.arguments["settings"].augment.layers == ("RandomFlip", "MixUp")


def test_every_field_has_a_default_and_a_description() -> None:
    config = RetrainConfig()
    for group in RetrainConfig.model_fields:
        for name, field in type(getattr(config, group)).model_fields.items():
            assert field.description, f"{group}.{name}"
            assert not field.is_required(), f"{group}.{name}"


def test_a_bound_is_said_where_people_see_it() -> None:
    schema = RetrainConfig.model_json_schema()["$defs"]
    epochs = schema["TrainingConfig"]["properties"]["epochs"]
    assert epochs["description"] == "Maximum number of passes over the training images; at least 1, at most 100,000."
    assert (epochs["minimum"], epochs["maximum"]) == (1, 100_000)
    limit = schema["DevicesConfig"]["properties"]["memory_limit_mb"]["description"]
    assert limit.endswith("as needed; at least 64.")


def test_the_published_name_is_model_and_dataset_unless_given() -> None:
    assert RetrainConfig().registry_name == "mlp-digits"
    versioned = RetrainConfig.model_validate({"data": {"name": "emnist/letters:3.1.0"}})
    assert versioned.registry_name == "mlp-emnist-letters"
    assert RetrainConfig.model_validate({"registry": {"name": "mine"}}).registry_name == "mine"


def test_the_config_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        RetrainConfig().training.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("batch_size", "asked", "threads"), [(32, None, 1), (63, None, 1), (64, None, None), (128, 3, 3), (32, 2, 2)]
)
def test_small_batches_without_convolutions_run_on_one_thread_unless_asked_otherwise(
    batch_size: int, asked: int | None, threads: int | None
) -> None:
    config = RetrainConfig.model_validate({"training": {"batch_size": batch_size}, "devices": {"threads": asked}})
    assert config.devices_for_model.threads == threads


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"name": "cnn", "hidden": [64]},
            "settings of cnn, which are width, dropout, shift, flip; hidden is not one of them",
        ),
        ({"width": 32}, "settings of mlp, which are hidden, dropout, shift, flip; width is not one of them"),
        ({"name": "resnet", "dropout": 0.1}, "dropout is not one of them"),
        ({"name": "vit", "width": 10, "heads": 4}, "heads that divide width; 4 does not divide 10"),
    ],
)
def test_a_network_takes_its_own_settings_alone(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"model": settings})
    assert sentence in config_sentence(caught.value)


def test_settings_are_those_given_and_the_network_has_the_defaults() -> None:
    assert RetrainConfig().model.settings == {}
    config = RetrainConfig.model_validate({"model": {"name": "vit", "depth": 2}})
    assert config.model.settings == {"depth": 2}


def test_the_flags_of_a_config_give_the_config_back() -> None:
    settings = {"data": {"name": "folder", "path": "my pets"}, "model": {"hidden": [8, 4]}, "training": {"epochs": 3}}
    config = RetrainConfig.model_validate(settings)
    assert config.as_flags == "--data.name folder --data.path 'my pets' --model.hidden '[8, 4]' --training.epochs 3"
    assert RetrainConfig().as_flags == ""
    parts = RetrainConfig.model_validate({"data": {"splits": {"train": "train[:80%]"}}})
    assert parts.as_flags == "--data.splits.train 'train[:80%]'"


def test_flags_are_taken_back_by_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.commands import app

    data = {"name": "mnist", "splits": {"train": "train[:80%]", "validation": "train[80%:]"}}
    settings = {"data": data, "model": {"flip": True, "hidden": [8]}, "devices": {"deterministic": True}}
    config = RetrainConfig.model_validate(settings)
    _, bound, _ = app.parse_args(["retrain", *shlex.split(config.as_flags)], exit_on_error=False)
    assert bound.arguments["settings"] == config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "folder", "path": "~nobody-at-all/x"}, "names a user who doesn't exist"),
        ({"name": "digits", "image_size": "99999x99999"}, "at most 100,000,000 pixels"),
    ],
)
def test_impossible_data_are_one_sentence(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"data": settings})
    assert sentence in config_sentence(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"training": {"optimizer": {"class_name": "Adam", "config": [1]}}}, "a mapping under `config`"),
        ({"training": {"optimizer": '{"class_name": "Adam", "config": [1]}'}}, "a mapping under `config`"),
        ({"training": {"schedule": {"class_name": "CosineDecay", "config": "fast"}}}, "a mapping under `config`"),
        ({"training": {"optimizer": {"class_name": "Adam", "lr": 1}}}, "`class_name` and `config`"),
        ({"training": {"optimizer": {"class_name": ["Adam"]}}}, "the name of a Keras optimizer"),
        ({"model": {"name": "os:system"}}, "a module of your own; it is one of Python's"),
        ({"model": {"name": "subprocess:getoutput", "options": {"cmd": "id"}}}, "it is one of Python's"),
        ({"model": {"name": "os.path:join"}}, "it is one of Python's"),
        ({"model": {"name": "__main__:x"}}, "it is one of Python's"),
        ({"model": {"name": f"{'m' * 300}:Net"}}, "at most 200 characters"),
        (
            {"model": {"name": "applications:MobileNetV3Smal"}},
            "such as MobileNetV3Small (did you mean MobileNetV3Small",
        ),
        ({"model": {"name": "applications:VGG16", "width": 3}}, "which are dropout, options; width is not one of them"),
        ({"model": {"name": "applications:VGG16", "options": {"alpha": 1}}}, "no options for VGG16; alpha is one"),
        (
            {"model": {"name": "applications:MobileNetV2", "options": {"weights": None}}},
            "options of MobileNetV2, which are alpha; weights is not one of them",
        ),
        *(
            ({"model": {"name": "applications:MobileNet", "options": options}}, sentence)
            for options, sentence in (
                ({"alpha": 0}, "an alpha above 0 and at most 10, not 0"),
                ({"alpha": "wide"}, "an alpha above 0 and at most 10, not 'wide'"),
                ({"depth_multiplier": 1.5}, "a whole depth_multiplier from 1 to 16, not 1.5"),
            )
        ),
        (
            {"model": {"name": "applications:MobileNetV3Large", "options": {"minimalistic": "yes"}}},
            "minimalistic to be true or false, not 'yes'",
        ),
        (
            {"model": {"name": "applications:MobileNetV2", "options": {"alpha": 0.4}, "weights": "imagenet"}},
            "an alpha of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4 for the ImageNet weights of MobileNetV2, not 0.4",
        ),
        (
            {"model": {"name": "applications:MobileNet", "options": {"depth_multiplier": 2}, "weights": "imagenet"}},
            "a depth_multiplier of 1 for the ImageNet weights",
        ),
        ({"model": {"weights": "imagenet"}}, "such as applications:MobileNetV3Small; mlp has none"),
        ({"model": {"name": "my.nets:Net", "weights": "imagenet"}}, "my.nets:Net has none"),
        ({"model": {"weights": "imagnet"}}, "(did you mean imagenet?)"),
        ({"model": {"weights": "preset"}}, "such as hub:resnet_18_imagenet; mlp has none"),
        ({"model": {"name": "my.nets:Net", "weights": "preset"}}, "my.nets:Net has none"),
        (
            {"model": {"name": "hub:resnet_18_imagenet", "weights": "imagenet"}},
            "weights preset for hub:resnet_18_imagenet, which are those that the preset brings, not imagenet",
        ),
        ({"model": {"name": "hub:x", "width": 3}}, "settings of hub:x, which are dropout; width is not one of them"),
        ({"model": {"name": "hub:x", "options": {"a": 1}}}, "which are dropout; options is not one of them"),
        *(
            ({"model": {"name": f"hub:{name}"}}, "the name of a preset of KerasHub after `hub:`")
            for name in ("", "../secrets", "a/b", ".x", "hf://a", "x" * 101, "a\nb")
        ),
        ({"model": {"weights": "cnn-pets@0"}}, "a published version such as cnn-pets@3"),
        ({"model": {"weights": "model.pt"}}, "the path of a .keras or .weights.h5 file"),
        ({"model": {"weights": "a\nb.keras"}}, "a path of printable characters"),
        ({"model": {"weights": f"{'m' * 1000}.keras"}}, "at most 1000 characters"),
        ({"data": {"module": "antigravity"}}, "it is one of Python's"),
        ({"data": {"name": "d" * 300}}, "at most 100 characters"),
        ({"data": {"name": "folder", "path": "/data/\udcff"}}, "a folder whose path is text in UTF-8"),
        ({"data": {"mirror": "/data/\udcff"}}, "a folder whose path is text in UTF-8"),
        ({"data": {"data_dir": "/data/\udcff"}}, "data.data_dir"),
        ({"data": {"data_dir": "~nobody-at-all/x"}}, "names a user who doesn't exist"),
        ({"data": {"name": "folder", "path": "/data/a\0b"}}, "a folder"),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run_fails_before_it(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate(settings)
    said = config_sentence(caught.value)
    assert sentence in said
    assert said.isprintable()


def test_a_name_to_publish_under_is_checked_also_where_it_is_made_from_model_and_data() -> None:
    long = {"name": "folder", "path": f"/data/{'a' * 250}"}
    for settings in ({"data": long}, {"model": {"name": "mynets.nets:_Net"}}):
        with pytest.raises(ValidationError) as caught:
            RetrainConfig.model_validate(settings)
        assert "set registry.name" in config_sentence(caught.value)
        named = RetrainConfig.model_validate({**settings, "registry": {"name": "mine"}})
        assert named.registry_name == "mine"


def test_folders_whose_names_differ_in_other_letters_have_other_titles() -> None:
    titles = {DataConfig(name="folder", path=Path(name)).title for name in ("猫", "犬", "pets", "my pets")}
    assert len(titles) == 4
    assert {"pets", "my-pets"} < titles


def test_the_run_form_has_groups_with_titles_and_says_that_all_of_it_is_optional() -> None:
    form = RetrainConfig.model_json_schema()
    groups = [form["$defs"][group["$ref"].rpartition("/")[2]] for group in form["properties"].values()]
    titles = [group["title"] for group in groups]
    assert titles[:4] == ["Data", "Model", "Training", "Augment"], "what most runs set comes first"
    assert all(title.endswith("(advanced)") for title in titles[titles.index("Gate") + 1 :])
    assert not any("Config" in title for title in titles)
    assert "Every field is optional" in form["description"]
    for group in groups:
        for name, field in group["properties"].items():
            assert field["title"] == name.replace("_", " ").capitalize()


@pytest.mark.parametrize("error", [0, 1, -0.1, 1.5, "often", float("nan")])
def test_the_error_of_an_abstaining_model_is_between_0_and_1(error: object) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"export": {"abstain": {"error": error}}})
    assert "export.abstain.error" in config_sentence(caught.value)


def test_calibration_and_abstention_are_flags_and_yaml(tmp_path: Path) -> None:
    from cli.commands import app
    from cli.given import settings_of

    flags = "--export.calibrate temperature --export.abstain.error 0.01"
    _, bound, _ = app.parse_args(["retrain", *shlex.split(flags)], exit_on_error=False)
    given = bound.arguments["settings"]
    assert given.as_flags == flags
    (tmp_path / "settings.yaml").write_text("export: {calibrate: temperature, abstain: {error: 0.05}}")
    assert settings_of(tmp_path / "settings.yaml", RetrainConfig()).export.abstain.error == 0.05
    assert settings_of(tmp_path / "settings.yaml", given) == given


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"training": {"checkpoint_seconds": "1E310"}}, "training.checkpoint_seconds"),
        ({"checks": {"max_psi": float("inf")}}, "checks.max_psi"),
        ({"augment": {"layers": [{"class_name": "RandomRotation", "config": {"factor": float("inf")}}]}}, "augment"),
    ],
)
def test_a_setting_that_no_json_can_keep_is_refused(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=rf"a finite number for {re.escape(field)}"):
        RetrainConfig.model_validate(settings)
