"""Networks that a user brings."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerflow import artifacts, user_code
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError
from layerflow.models import build as building
from layerflow.models.network_digest import digest_of
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train
from tests.command import layerflow
from tests.shared import GRAPH, copy_artifact

NETS = '''
import keras
from keras import ops


@keras.saving.register_keras_serializable("mine")
class MyNet(keras.Model):
    def __init__(self, classes, width=16, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.width = classes, width
        self.parts = [keras.layers.Flatten(), keras.layers.Rescaling(1 / 255), keras.layers.Dense(width, "relu"),
                      keras.layers.Dense(classes)]

    def build(self, input_shape):
        shape = input_shape
        for part in self.parts:
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, images):
        for part in self.parts:
            images = part(images)
        return images

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "width": self.width}


def functional(classes, image_shape):
    inputs = keras.Input(image_shape, dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dense(32, "relu")(x)))


def probabilities(classes, image_shape):
    return keras.Sequential([functional(classes, image_shape), keras.layers.Softmax()])


def drops(classes, image_shape):
    return keras.Sequential([keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dropout(0.5),
                             keras.layers.Dense(classes)])


def no_model(classes):
    return [classes]


def one_too_many(classes, image_shape):
    return functional(classes + 1, image_shape)


def breaks(classes):
    raise RuntimeError("out of ideas\\nand more")


class Forgetful(MyNet):
    def get_config(self):
        return {}


@keras.saving.register_keras_serializable("mine")
class Unsaved(MyNet):
    """A weight that Keras does not know of."""

    def build(self, input_shape):
        super().build(input_shape)
        import tensorflow as tf
        self.hidden = [tf.random.normal((1,))]

    def call(self, images):
        return super().call(images) * self.hidden[0]


class OwnLoss(MyNet):
    def compute_loss(self, *args, **kwargs):
        return 0.0


not_callable = 3
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's in the working folder."""
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").write_text("")
    (tmp_path / "mynets" / "nets.py").write_text(NETS)
    (tmp_path / "mynets" / "broken.py").write_text("import nonsense\n")
    (tmp_path / "mynets" / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
        del sys.modules[name]


def build(name: str, digits: DatasetRef, folder: Path, **options: object) -> object:
    return building.build(ModelConfig(name=name, options=options or None), digits, 0, folder)


@pytest.mark.parametrize("name", ["mynets.nets:MyNet", "mynets.nets:functional", "mynets.nets:probabilities"])
def test_a_class_or_a_function_makes_the_network(name: str, nets: Path, digits: DatasetRef, tmp_path: Path) -> None:
    assert build(name, digits, tmp_path).name == name


def test_its_options_and_its_code_are_part_of_what_it_is(nets: Path, digits: DatasetRef, tmp_path: Path) -> None:
    first = build("mynets.nets:MyNet", digits, tmp_path, width=8)
    assert first.parameters == 64 * 8 + 8 + 8 * 10 + 10
    code = user_code.package_digest("mynets.nets:MyNet")
    (nets / "mynets" / "helper.py").write_text("x = 1\n")
    assert user_code.package_digest("mynets.nets:MyNet") != code
    assert digest_of("mynets.nets:MyNet", tmp_path / "model.keras") != first.digest


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("nowhere.nets:MyNet", {}, "No module nowhere exists"),
        ("mynets.net:MyNet", {}, "mynets.net can't (ModuleNotFoundError"),
        ("mynets.broken:MyNet", {}, "No module named 'nonsense'"),
        ("mynets.leaves:MyNet", {}, "mynets.leaves can't (SystemExit"),
        ("mynets.nets:MyNte", {}, "did you mean MyNet?"),
        ("mynets.nets:not_callable", {}, "must hold a class or function not_callable"),
        ("mynets.nets:no_model", {}, "must give a keras.Model. Received: list"),
        ("mynets.nets:OwnLoss", {}, "Received: OwnLoss with a compute_loss of its own; call add_loss in its layers"),
        ("mynets.nets:one_too_many", {}, "shape (batch, 10). Received: (2, 11)"),
        ("mynets.nets:breaks", {}, "It says: RuntimeError: out of ideas"),
        ("mynets.nets:MyNet", {"depth": 3}, "must make a network of classes, depth. It says:"),
        ("mynets.nets:Forgetful", {}, "must load again once it is saved"),
        ("mynets.nets:Unsaved", {}, "must answer the same once it is saved and loaded"),
    ],
)
def test_what_can_not_be_used_is_one_sentence(
    name: str, options: dict[str, object], sentence: str, nets: Path, digits: DatasetRef, tmp_path: Path
) -> None:
    def use() -> None:
        user_code.package_digest(name)
        build(name, digits, tmp_path, **options)

    with pytest.raises(ConfigError) as caught:
        use()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_its_random_layers_draw_the_same_in_each_training(
    nets: Path, digits: DatasetRef, empty_store: Path, session_store: Path, tmp_path: Path
) -> None:
    """Keras saves no state of a dropout, and draws another one from `random` whenever a network is loaded."""
    copy_artifact(digits.folder, session_store, empty_store)
    model = artifacts.make("build_model", "drops", ModelRef, lambda folder: build("mynets.nets:drops", digits, folder))
    losses = []
    for number in range(2):
        random.seed(number)
        shutil.rmtree(empty_store / "checkpoints", ignore_errors=True)
        (folder := tmp_path / str(number)).mkdir()
        losses.append(train(TrainingConfig(epochs=1, **GRAPH), model, digits, folder).history[0].loss)
    assert losses[0] == losses[1]


FOREIGN = """
from functools import partial
from subprocess import Popen, getoutput
from keras.applications import MobileNetV3Small
command = partial(getoutput, "true")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two installed packages: one says that it needs Keras, the other does not."""
    site = tmp_path / "site-packages"
    for name, needs in (
        ("wheelnets", "keras>=3"),
        ("wheeltools", 'keras; extra == "x"'),
    ):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("def make(classes): raise SystemExit\n")
        (site / f"{name}-1.dist-info").mkdir()
        (site / f"{name}-1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1\nRequires-Dist: {needs}\n")
        (site / f"{name}-1.dist-info" / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(user_code, "_packages", {})
    yield
    for name in ("wheelnets", "wheeltools"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name",
    [
        *("psutil:Popen", "psutil:pids", "joblib:load", "numpy:load", "pip:main"),
        *("keras.saving:load_model", "keras.utils:get_file", "keras.layers:Dense", "layerflow.checksums:sha256"),
        *("mynets.foreign:Popen", "mynets.foreign:getoutput", "mynets.foreign:command", "wheeltools:make"),
    ],
)
def test_what_makes_no_network_is_refused_before_it_is_called(name: str, nets: Path, installed: None) -> None:
    (nets / "mynets" / "foreign.py").write_text(FOREIGN)
    with pytest.raises(ConfigError, match="must name a Keras model class, or a function"):
        user_code.maker_of(name)


@pytest.mark.parametrize(
    "name",
    ["mynets.nets:functional", "mynets.foreign:MobileNetV3Small", "keras:Sequential", "wheelnets:make"],
)
def test_a_network_may_come_from_an_installed_package_that_needs_keras(name: str, nets: Path, installed: None) -> None:
    (nets / "mynets" / "foreign.py").write_text(FOREIGN)
    assert callable(user_code.maker_of(name))


def test_a_name_and_its_options_are_checked_with_the_other_settings() -> None:
    config = RetrainConfig.model_validate({"model": {"name": "my.nets:MyNet", "options": '{"width": 3}'}})
    assert config.model.settings == {"width": 3}
    assert config.registry_name == "MyNet-digits"
    for wrong in ({"name": "my.nets:"}, {"name": "my.nets:MyNet", "width": 3}, {"options": {"width": 3}}):
        with pytest.raises(ValueError, match=r"a model named one of|is not one of them"):
            RetrainConfig.model_validate({"model": wrong})


@pytest.mark.usefixtures("on_the_server")
@pytest.mark.process
def test_it_goes_through_the_whole_pipeline_and_changed_code_trains_anew(nets: Path, tmp_path: Path) -> None:
    """In processes of their own: a process imports a module of the user's once."""

    def retrain() -> dict[str, object]:
        network = ("--model.name", "mynets.nets:MyNet", "--model.options", '{"width": 24}')
        done = layerflow("retrain", "--json", *network, store=tmp_path / "store", cwd=nets)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert retrain()["code"] == "promoted_first"
    again = retrain()
    assert again["code"] == "unchanged"
    assert {step["state"] for step in again["steps"].values()} == {"Cached", "Unchanged"}
    (nets / "mynets" / "nets.py").write_text(NETS.replace('"relu"', '"tanh"'))
    changed = retrain()
    states = {name: step["state"] for name, step in changed["steps"].items()}
    assert states["load_data"] == "Cached"
    assert states["train_model"] == "Completed"
    assert states["promote_model"] != "Unchanged"


MISTAKES = """
import keras


class BadShape(keras.layers.Layer):
    def call(self, x):
        return x

    def compute_output_shape(self, s):  # Keras calls it with the names of `call`
        return s


class BadCall(keras.layers.Layer):
    def call(self, x):
        return x + self.missing


def graph(x):
    if keras.ops.sum(x) > 0:
        x = x.nothing
    return x
"""


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        ("BadShape().compute_output_shape(x_shape=(None, 3))", "def compute_output_shape(self, s):"),
        ("BadCall()(keras.Input((3,)))", "return x + self.missing"),
        ("tf.function(graph)(tf.ones(3))", "x = x.nothing"),
    ],
)
def test_a_mistake_in_the_users_code_is_one_sentence_with_its_file_and_line(
    attempt: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    import keras
    import tensorflow as tf

    from layerflow.errors import heals
    from tasks import caching

    file = tmp_path / "mistaken.py"
    file.write_text(MISTAKES)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mistaken", None)
    module = user_code.load_module("mistaken:BadShape")

    def work(config: ModelConfig, folder: Path) -> DatasetRef:
        return eval(attempt, {**vars(module), "keras": keras, "tf": tf})

    monkeypatch.setattr(caching, "code_of", lambda module: {})  # this file is no module of the project
    with pytest.raises(ConfigError) as raised:
        caching._make("build_model", work, {"config": ModelConfig()})
    number = next(n for n, text in enumerate(MISTAKES.splitlines(), 1) if line in text)
    assert f"{file}:{number} in " in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not heals(raised.value)


def test_an_error_that_passes_by_the_users_code_is_not_blamed_on_it() -> None:
    with pytest.raises(ValueError, match="Expecting") as raised:
        json.loads("{")
    assert user_code.blame(raised.value) is None


def test_code_that_needs_a_folder_named_like_a_package_of_layerflow_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "__init__.py").touch()
    (tmp_path / "wants_layers.py").write_text("from layers.mine import Mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("wants_layers:network", "layers.mine:Net"):
        with pytest.raises(ConfigError, match=r"layers is one\. Give layers another name, such as mylayers\.$"):
            user_code.load_module(name)
