"""Extensions: what users add to the steps, from outside of the package."""

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf  # noqa: F401  (its first import starts a process, which a test must not)

import tasks
from cli.check_data import check_data
from layerflow import artifacts, plugins, store, testing
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, DataError, LayerflowError, VerificationError
from layerflow.export import own_formats
from layerflow.export.own_formats import file_of, score_own_format, write_format
from layerflow.export.portable import formats_of
from layerflow.outcomes import OwnFigures, Retrained
from layerflow.registry.handing_over import hand, sums_of
from tasks import logs, tracking
from tasks.caching import make
from tasks.extensions import extensions_of
from tests import forked

ROOT = Path(__file__).resolve().parent.parent
COUNTER = itertools.count()
PAGE = (ROOT / "docs" / "extending.md").read_text()


def snippets() -> dict[str, list[str]]:
    """The snippets of the page, by the file that they are of."""
    found: dict[str, list[str]] = {}
    for name, code in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        found.setdefault(name, []).append(code)
    return found


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user with the page's ``shop.py``, in which commands are called."""
    for name, codes in snippets().items():
        (tmp_path / name).write_text("".join(codes))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit in the same second would not be seen
    yield tmp_path / "shop.py"
    sys.modules.pop("shop", None)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))
    sys.modules.pop("shop", None)


def test_a_check_a_metric_and_an_exporter_have_at_most_15_lines() -> None:
    for code, name in zip(snippets()["shop.py"], ("dark_images", "unsure", "Float16"), strict=False):
        assert name in code
        assert len([line for line in code.splitlines() if line]) <= 15


@pytest.mark.slow
def test_the_examples_keep_their_contracts(shop: Path) -> None:
    names: dict[str, object] = {}
    exec(compile((shop.parent / "test_shop.py").read_text(), "test_shop.py", "exec"), names)
    names["test_the_extensions_keep_their_contracts"]()  # type: ignore[operator]


class Forgetful:
    """An exporter that answers all images of a batch by the first one."""

    file = "model.npz"

    def export(self, saved_model: Path, file: Path) -> None:
        file.write_bytes(b"x")

    def load(self, file: Path) -> object:
        return lambda images: np.repeat([[0.2, 0.3, 0.5]], len(images), 0)


@pytest.mark.parametrize(
    ("test", "extension", "said"),
    [
        (testing.assert_check, lambda data: ["dark"], "must yield pairs of a level"),
        (testing.assert_check, lambda data: [("bad", "dark")], "must yield pairs of a level"),
        (testing.assert_check, lambda data: [("info", " ")], "must yield pairs of a level"),
        (testing.assert_check, lambda data: [("info", str(next(COUNTER)))], "must find the same"),
        (testing.assert_metric, lambda labels, probabilities: np.nan, "must give a finite number"),
        (testing.assert_metric, lambda labels, probabilities: probabilities[0, 0], "the order of the images"),
        (testing.assert_metric, lambda labels, probabilities: np.random.random(), "the same for the same answers"),
        (testing.assert_metric, lambda labels, probabilities: probabilities.sort() or 1.0, "must not change"),
        (testing.assert_metric, lambda labels, probabilities: 1 / len({*labels} - {0} or [])
         if {*labels} != {0} else np.inf, "are of one class"),
        (testing.assert_publisher, lambda version: (version.folder / "new").write_text("x"), "must leave the version"),
        (testing.assert_exporter, Forgetful, "must give the classes"),
        (testing.assert_exporter, SimpleNamespace, "the name of its file"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_contract_test_finds_what_breaks_it(test: object, extension: object, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        test(extension)  # type: ignore[operator]


def test_an_own_check_is_cached_until_its_code_changes(shop: Path, first_run: Retrained) -> None:
    names = ("shop:dark_images",)

    def run() -> tuple[str, tuple[str, ...]]:
        code = plugins.digests("checks", names)
        found = make(tasks.own_checks, names, code, first_run.data)
        return found.folder, tuple(finding.text for finding in found.findings)

    first = run()
    assert first[1] == ()
    made = store.path(f"{first[0]}/record.json").stat().st_mtime_ns
    assert run() == first
    assert store.path(f"{first[0]}/record.json").stat().st_mtime_ns == made
    edit(shop, "image.mean() < 20", "image.mean() < 300")
    folder, texts = run()
    assert folder != first[0]
    count = f"{first_run.data.counts['train']:,}"
    assert texts == (f"{count} of {count} training images are almost black; remove them",)


def test_an_edit_of_a_metric_makes_its_figure_anew(shop: Path, first_run: Retrained) -> None:
    config = RetrainConfig.model_validate({"extend": {"metrics": "shop:unsure", "checks": "shop:dark_images"}})

    def run() -> float:
        code = extensions_of(config.extend)["metrics"]
        made = make(tasks.own_metrics, config.extend.metrics, code, first_run.evaluation, first_run.data)
        return made.values["shop:unsure"]

    probabilities = np.load(store.path(first_run.evaluation.predictions))
    assert run() == pytest.approx((probabilities.max(axis=-1) < 0.5).mean())
    edit(shop, "< 0.5", "< 0.9")
    assert run() == pytest.approx((probabilities.max(axis=-1) < 0.9).mean())


def test_a_check_that_says_stop_ends_the_run_with_its_name(shop: Path, first_run: Retrained) -> None:
    edit(shop, '"warn", f"{dark', '"stop", f"{dark')
    edit(shop, "< 20", "< 300")
    names = ("shop:dark_images",)
    from layerflow.data.own_checks import look, require_no_stop

    with pytest.raises(DataError, match=r"digits must pass your checks\. They do not: shop:dark_images: [\d,]+ of"):
        require_no_stop(look(names, first_run.data))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("checks", "nowhere:look", "must name something that can be imported. nowhere can't"),
        ("checks", "shop:light_images", "must hold a function or class light_images. It has none"),
        ("checks", "shop:tf", "must hold a function or class tf"),
        ("metrics", "numpy:mean", "something of your own, or of a package that needs layerflow. numpy:mean is neither"),
        ("metrics", "shop:Path", "shop:Path is neither"),
        ("metrics", "layerflow.store:root", "layerflow.store:root is neither"),
        ("metrics", "unsure", "an entry point of the group layerflow.metrics. Received: unsure"),
        ("trackers", "mlfow", "(mlflow, wandb). Received: mlfow (did you mean mlflow?)"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(shop: Path, kind: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plugins.load(kind, name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["os:system", "a b", "x:", ":y", "../x:y", "shop:a.b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"extend\.checks"):
        RetrainConfig.model_validate({"extend": {"checks": name}})


def test_an_error_in_an_extension_is_one_sentence_with_its_name_and_line(shop: Path, first_run: Retrained) -> None:
    edit(shop, "return (probabilities.max(axis=-1) < 0.5).mean()", "return probabilities.maximum()")
    names = ("shop:unsure",)
    code = plugins.digests("metrics", names)
    with pytest.raises(ConfigError) as error:
        make(tasks.own_metrics, names, code, first_run.evaluation, first_run.data)
    line = shop.read_text().splitlines().index("    return probabilities.maximum()") + 1
    said = "It raises AttributeError: 'numpy.ndarray' object has no attribute 'maximum'"
    assert str(error.value) == (
        f"extend.metrics shop:unsure must give a finite number of labels and probabilities. {said} (shop.py:{line})."
    )


def test_an_extension_cannot_end_the_run_without_a_word(shop: Path, first_run: Retrained) -> None:
    edit(shop, "return (probabilities.max(axis=-1) < 0.5).mean()", "raise SystemExit(3)")
    code = plugins.digests("metrics", ["shop:unsure"])
    with pytest.raises(ConfigError, match=r"It raises SystemExit: 3 \(shop\.py:"):
        make(tasks.own_metrics, ("shop:unsure",), code, first_run.evaluation, first_run.data)


def test_an_entry_point_is_found_by_its_name(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip leaves an installed package: beside the module, what the package says of itself."""
    about = shop.parent / "shop-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\nRequires-Dist: layerflow\n")
    (about / "entry_points.txt").write_text("[layerflow.checks]\ndark = shop:dark_images\n")
    plugins.entry_points.cache_clear()
    try:
        assert plugins.load("checks", "dark").__name__ == "dark_images"
        assert (
            plugins.digests("checks", ["dark"])["dark"]
            == plugins.digests("checks", ["shop:dark_images"])["shop:dark_images"]
        )
    finally:
        plugins.entry_points.cache_clear()


@pytest.mark.parametrize("file", ["../x", "model.onnx", ".hidden", "", None, "a/b"])
def test_the_file_of_an_exporter_can_stand_beside_the_others(shop: Path, file: str | None) -> None:
    edit(shop, 'file = "model_float16.tflite"', f"file = {file!r}")
    with pytest.raises(ConfigError, match="must have the name of its file as `file`"):
        file_of("shop:Float16")


@pytest.mark.usefixtures("first_run")
def test_data_check_runs_own_checks_too(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "install", lambda: None)  # for good: other tests look at the log
    edit(shop, '"warn", f"{dark', '"stop", f"{dark')
    edit(shop, "< 20", "< 300")
    with pytest.raises(DataError, match="shop:dark_images"):
        check_data(RetrainConfig.model_validate({"extend": {"checks": "shop:dark_images"}}), as_json=True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["level"] for finding in findings if finding["check"] == "shop:dark_images"] == ["stop"]


def test_verify_names_the_file_of_an_exporter_and_does_not_start_it(tmp_path: Path) -> None:
    files = tmp_path / "assets.extra" / "formats"
    files.mkdir(parents=True)
    (files / "model_float16.tflite").write_bytes(b"x")
    assert list(formats_of(tmp_path)) == ["model_float16.tflite"]
    assert "not verified" in formats_of(tmp_path)["model_float16.tflite"]


BROKEN = """
calls = []


def broken(run):
    calls.append(run.epochs)
    raise RuntimeError("no server")


def closed(version):
    calls.append(version.number)
    if len(calls) == 1:
        raise ConnectionError("closed")
"""


def test_a_tracker_that_fails_is_called_no_more_in_the_training_and_others_are(
    shop: Path, first_run: Retrained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.write_text(shop.read_text() + BROKEN)
    config = RetrainConfig.model_validate({"extend": {"trackers": ["shop:broken", "shop:to_file"]}})
    monkeypatch.setattr(tracking, "settings_of_run", lambda: config)
    monkeypatch.setattr(tracking, "_SECONDS", -1)
    folders: list[Path] = []

    def train(folder: Path) -> OwnFigures:
        folders.append(folder)
        (callback,) = tracking.epochs_tracked(first_run.data, folder)
        callback.on_train_begin()
        for epoch in range(2):
            callback.on_epoch_end(epoch, {"loss": 1.5})
        return OwnFigures(predictions_digest="", values={})

    made = artifacts.make("train_model", "0123abcd", OwnFigures, train)
    line = shop.read_text().splitlines().index('    raise RuntimeError("no server")') + 1
    assert {*caplog.messages} == {  # twice, where another test has set up the log of runs
        "shop:broken is not called again in this training: extend.trackers shop:broken must record a run. It raises "
        f"RuntimeError: no server (shop.py:{line})."
    }
    told = json.loads((shop.parent / f"{made.folder.rpartition('/')[2]}.json").read_text())
    assert told["epochs"] == [{"epoch": 1, "loss": 1.5}, {"epoch": 2, "loss": 1.5}]
    assert len(sys.modules["shop"].calls) == 1


def test_a_version_is_handed_over_once_and_again_where_that_failed(shop: Path, first_run: Retrained) -> None:
    shop.write_text(shop.read_text() + BROKEN)
    name, version = first_run.promotion.name, first_run.promotion.version
    code = plugins.digests("publishers", ["shop:closed"])
    inputs = ("shop:closed", code, name, version, sums_of(name, version))
    with pytest.raises(ConnectionError):  # which Prefect retries
        make(tasks.hand_over, *inputs)
    for _ in range(2):
        make(tasks.hand_over, *inputs)
    assert sys.modules["shop"].calls == [1, 1]


def test_a_damaged_version_is_not_handed_over(shop: Path, first_run: Retrained) -> None:
    graph = store.path(first_run.promotion.published) / "saved_model.pb"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(LayerflowError, match=r"saved_model\.pb"):
            hand("shop:to_shop", first_run.promotion.name, first_run.promotion.version)
    finally:
        graph.write_bytes(content)
    assert not (shop.parent / "disk").exists()


@pytest.mark.process
def test_an_exporter_can_be_in_a_module_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as exporters run: layerflow has files of such names beside the program."""
    monkeypatch.chdir(tmp_path)
    code = "class Empty:\n    file = 'x.txt'\n    def export(self, saved_model, file): file.write_text('mine')\n"
    (tmp_path / "formats.py").write_text(code)
    assert write_format("formats:Empty", tmp_path, tmp_path / "x.txt") is None
    assert (tmp_path / "x.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "answers", [np.zeros((1, 2), np.float32), np.zeros((360, 10)), np.full((360, 10), np.nan, "f4")]
)
def test_answers_that_an_exporter_has_changed_are_refused(
    first_run: Retrained, monkeypatch: pytest.MonkeyPatch, answers: np.ndarray, tmp_path: Path
) -> None:
    def run(request: dict[str, str]) -> dict[str, float]:
        np.save(request["answers"], answers)
        return {}

    monkeypatch.setattr(own_formats, "_run", run)
    (tmp_path / "answers.npy").write_bytes(b"a model of this name")
    with pytest.raises(VerificationError, match="has changed it"):
        score_own_format(first_run.evaluation, first_run.data, "shop:Float16", tmp_path / "answers.npy")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.usefixtures("on_the_server")
def test_a_run_with_all_kinds_and_one_after_an_edit(shop: Path, tmp_path: Path) -> None:
    """In processes of their own: each imports the user's module as it is then."""
    flags = [
        *("--extend.checks", "shop:dark_images", "--extend.metrics", "shop:unsure"),
        *("--extend.exporters", "shop:Float16", "--extend.trackers", "shop:to_file"),
        *("--extend.publishers", "shop:to_shop"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LAYERFLOW_STORE": str(tmp_path / "store")}

    def run(*more: str) -> str:
        command = [sys.executable, "-m", "cli.main", "retrain", *flags, *more]
        done = forked.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def states(out: str) -> dict[str, str]:
        return dict(re.findall(r"^│ (\w+) +│ (\w+)", out, re.MULTILINE))

    out = run()
    assert "format    shop:Float16" in out
    version = tmp_path / "store" / "models" / "mlp-digits" / "1"
    assert (version / "assets.extra" / "formats" / "model_float16.tflite").stat().st_size > 1000
    assert (tmp_path / "disk" / "mlp-digits" / "1" / "saved_model.pb").read_bytes() == (
        version / "saved_model.pb"
    ).read_bytes()
    (told,) = tmp_path.glob("*.json")
    assert '"promoted_first"' in told.read_text()
    edit(shop, "< 0.5", "< 0.4")
    shop.write_text(shop.read_text() + BROKEN)
    after = states(run("--extend.trackers", "shop:broken"))
    assert after.pop("own_metrics") == "Completed"
    assert after.pop("track_run") == "Failed"
    assert after.pop("promote_model") == "Unchanged"
    # The module is one file: what else is in it is made anew, and nothing of layerflow's own.
    for step in ("own_checks", "convert_model", "verify_formats", "hand_over"):
        after.pop(step)
    assert set(after.values()) == {"Cached"}
    assert [told] == list(tmp_path.glob("*.json"))
