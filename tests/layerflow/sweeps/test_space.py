"""What a sweep tries: refused before the first trial, drawn the same after a kill, pruned by the median."""

import errno
import importlib.util
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from layerflow import store
from layerflow.cards import sweep as sweep_card
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, TrialError
from layerflow.records import DatasetRef
from layerflow.settings.model import MODELS
from layerflow.sweeps.outcomes import StudyRef
from layerflow.sweeps.space import configured, plan
from layerflow.sweeps.study import Study, study_of
from tasks import choose_winner

SPACE: dict[str, Any] = {
    "training.learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "training.patience": {"int": [2, 9]},
    "model.hidden": {"choice": [[32], [64], [128, 64]]},
}
REF = StudyRef(folder="sweeps/of-the-test", monitor="val_loss", warm_up=2)

REFUSED: dict[str, tuple[Any, str]] = {
    "no mapping": ([1], "must be a mapping"),
    "no field": ({}, "must name a field at least"),
    "unknown field": ({"training.learning": {"int": [1, 2]}}, "did you mean training.learning_rate"),
    "group": ({"training": {"int": [1, 2]}}, "No such setting exists"),
    "data": ({"data.validation_fraction": {"uniform": [0.1, 0.2]}}, "must be the same in all trials"),
    "gate": ({"gate.margin": {"uniform": [0, 1]}}, "must be the same in all trials"),
    "registry": ({"registry.keep": {"int": [1, 2]}}, "must be the same in all trials"),
    "checks": ({"checks.max_psi": {"uniform": [0.1, 1]}}, "must be the same in all trials"),
    "devices": ({"devices.threads": {"int": [1, 2]}}, "must be the same in all trials"),
    "monitor": ({"training.monitor": {"choice": ["val_loss", "loss"]}}, "it is what trials are compared by"),
    "seed": ({"training.seed": {"int": [0, 9]}}, "a lucky seed is not a better setting"),
    "network": ({"model.name": {"choice": ["mlp", "cnn"]}}, "a sweep is of one network"),
    "kind": ({"training.epochs": {"normal": [1, 2]}}, "one of choice, uniform, log_uniform, int"),
    "two kinds": ({"training.epochs": {"int": [1, 2], "choice": [3]}}, "one of choice"),
    "no list": ({"training.epochs": {"int": 3}}, "must have a list of values"),
    "no choice": ({"training.epochs": {"choice": []}}, "must have a list of values"),
    "one bound": ({"training.epochs": {"int": [3]}}, "must have two numbers"),
    "word as bound": ({"training.epochs": {"int": [1, "many"]}}, "must have two numbers"),
    "reversed": ({"training.epochs": {"int": [5, 1]}}, "a lower bound and a higher one"),
    "not a number": ({"model.dropout": {"uniform": [0, float("nan")]}}, "both finite"),
    "log of 0": ({"training.learning_rate": {"log_uniform": [0, 1]}}, "bounds above 0"),
    "half a unit": ({"training.epochs": {"int": [1, 2.5]}}, "whole numbers as bounds"),
    "bound outside": ({"training.learning_rate": {"uniform": [0.1, 11]}}, "less than or equal to 10. Received: 11.0"),
    "choice outside": ({"model.hidden": {"choice": [[8], [0]]}}, "model.hidden.0: input should be greater than 0"),
    "whole by chance": ({"training.patience": {"uniform": [1, 1001]}}, "takes whole numbers; search it by int"),
    "fractions for whole": ({"training.epochs": {"uniform": [1, 5]}}, "takes whole numbers; search it by int"),
    "number for list": ({"model.hidden": {"int": [1, 5]}}, "model.hidden: input should be a valid tuple"),
    "another network's": ({"model.width": {"int": [1, 5]}}, "width is not one of them"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_space_is_one_sentence_before_anything_runs(case: str) -> None:
    space, reason = REFUSED[case]
    with pytest.raises(ConfigError) as raised:
        plan(RetrainConfig(), space)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "space",
    [
        "x" * 5000,
        {"x" * 5000: {"int": [1, 2]}},
        {"training.epochs": {"int": ["x" * 5000, 2]}},
        {"training.epochs": ["x" * 5000]},
        {"training.optimizer": {"choice": ["x" * 5000]}},
    ],
    ids=["no mapping", "field", "bound", "kind", "choice"],
)
def test_a_sentence_repeats_little_of_a_wrong_space(space: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(RetrainConfig(), space)
    assert len(str(raised.value)) < 600


def test_settings_that_do_not_fit_together_are_found_out_too() -> None:
    vit = RetrainConfig.model_validate({"model": {"name": "vit"}})
    with pytest.raises(ConfigError, match="5 does not divide 32"):
        plan(vit, {"model.width": {"choice": [40, 32]}, "model.heads": {"choice": [4, 5]}})


def test_options_of_a_network_of_the_users_are_searched_one_by_one() -> None:
    given = {"model": {"name": "mynets:MyNet", "options": {"depth": 3, "rate": 0.1}}}
    mine = RetrainConfig.model_validate(given)
    space = {"model.options.rate": {"uniform": [0, 1]}, "model.options.a.b": {"choice": [[1], {"c": 2}]}}
    assert plan(mine, space).keys() == space.keys()
    options = configured(mine, {"model.options.rate": 0.5, "model.options.a.b": {"c": 2}}).model.options
    assert options == {"depth": 3, "rate": 0.5, "a.b": {"c": 2}}
    assert configured(RetrainConfig(model={"name": "m:n"}), {"model.options.x": 1}).model.options == {"x": 1}
    assert mine.model.options == {"depth": 3, "rate": 0.1}
    with pytest.raises(ConfigError, match=r"as a whole or by its parts\. It does both, with model\.options\.rate"):
        plan(mine, space | {"model.options": {"choice": [{}]}})
    with pytest.raises(ConfigError, match=r"model\.options\.rate must be a setting of a run"):
        plan(RetrainConfig(), space)


def test_each_whole_number_of_a_short_range_is_tried_out() -> None:
    vit = RetrainConfig.model_validate({"model": {"name": "vit", "heads": 4}})
    with pytest.raises(ConfigError, match="4 does not divide 17"):
        plan(vit, {"model.width": {"int": [16, 64]}})
    assert plan(vit, {"model.width": {"int": [16, 1600]}}), "what it draws may fail as a trial"


def test_augmentation_and_fine_tuning_are_searched_too() -> None:
    mixed = [{"class_name": "MixUp", "config": {"alpha": 0.2}}]
    space = {"augment.layers": {"choice": [["RandomFlip"], mixed]}, "finetune.head_epochs": {"int": [1, 3]}}
    mine = RetrainConfig.model_validate({"model": {"name": "cnn", "weights": "champion"}})
    assert plan(mine, space) == space
    drawn = configured(mine, {"augment.layers": mixed, "finetune.head_epochs": 2})
    assert (drawn.augment.layers, drawn.finetune.head_epochs) == (tuple(mixed), 2)
    with pytest.raises(ConfigError, match="The search space must hold settings of a run"):
        plan(mine, {"augment.layers": {"choice": [["RandomFlipp"]]}})


def test_trials_are_compared_by_the_validation_alone() -> None:
    with pytest.raises(ConfigError, match="must be a validation figure"):
        plan(RetrainConfig.model_validate({"training": {"monitor": "accuracy"}}), SPACE)


def test_trials_with_different_losses_are_not_compared_by_the_loss() -> None:
    losses = {"training.loss": {"choice": ["CategoricalCrossentropy", "CategoricalFocalCrossentropy"]}}
    with pytest.raises(ConfigError, match="must not be val_loss where the space"):
        plan(RetrainConfig(), losses)
    assert plan(RetrainConfig(training={"monitor": "val_accuracy"}), losses) == losses


def test_numbers_that_yaml_takes_for_words_are_numbers() -> None:
    space = yaml.safe_load("training.learning_rate: {log_uniform: [1e-4, 1e-2]}")
    assert plan(RetrainConfig(), space) == {"training.learning_rate": {"log_uniform": [0.0001, 0.01]}}


@pytest.mark.parametrize("network", [*MODELS, "mynets:MyNet"])
def test_every_network_has_a_space_of_its_own_without_what_is_set_already(network: str) -> None:
    space = plan(RetrainConfig.model_validate({"model": {"name": network}}))
    assert {"training.learning_rate", "training.batch_size"} <= space.keys()
    assert all(name.startswith("training.") or name.partition(".")[2] in MODELS[network] for name in space)
    fixed = RetrainConfig.model_validate({"model": {"name": network}, "training": {"learning_rate": 0.1}})
    assert plan(fixed).keys() == space.keys() - {"training.learning_rate"}


def test_without_ray_a_sweep_on_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plan(RetrainConfig(), SPACE)
    with pytest.raises(ConfigError, match=r"pip install 'layerflow\[ray\]'.*make ray"):
        plan(RetrainConfig(), SPACE, ray="auto")
    with pytest.raises(ConfigError, match=r"workers 2 needs Ray.*pip install 'layerflow\[ray\]'"):
        plan(RetrainConfig.model_validate({"training": {"workers": 2}}), SPACE)


def run(study: Study, trials: int, seed: int = 0) -> list[dict[str, object]]:
    """Trials whose loss is how far the learning rate is from 1e-3, in decades."""
    for _ in range(trials):
        trial = study.draw(plan(RetrainConfig(), SPACE), seed)
        study.end(trial.number, 1.0, abs(np.log10(trial.settings["training.learning_rate"]) + 3))
    return [trial.settings for trial in study.trials]


def test_all_that_is_drawn_is_in_the_space_and_makes_a_config(empty_store: Path) -> None:
    for settings in run(Study(REF), 30):
        config = configured(RetrainConfig(), settings)
        assert 1e-4 <= config.training.learning_rate <= 1e-2
        assert 0 <= (config.model.dropout or 0) <= 0.5
        assert 2 <= config.training.patience <= 9
        assert config.model.hidden in ((32,), (64,), (128, 64))


def test_a_trial_draws_by_the_seed_its_number_and_what_is_finished(empty_store: Path) -> None:
    whole = run(Study(REF), 12)
    restarted = [run(Study(REF.model_copy(update={"folder": "sweeps/again"})), 1) for _ in range(12)][-1]
    assert restarted == whole, "a process each"
    assert len({settings["training.learning_rate"] for settings in whole}) == 12, "a seeded sampler begins anew"
    assert run(Study(REF.model_copy(update={"folder": "sweeps/other"})), 1, seed=1)[0] != whole[0]


def test_it_learns_from_what_is_finished(empty_store: Path) -> None:
    study, one = Study(REF), {"training.learning_rate": SPACE["training.learning_rate"]}
    distances = []
    for _ in range(40):
        trial = study.draw(plan(RetrainConfig(), one), 0)
        distances.append(abs(np.log10(trial.settings["training.learning_rate"]) + 3))
        study.end(trial.number, 1.0, distances[-1])
    assert np.median(distances[-10:]) < 0.25, "of draws at random it is 0.5"


def test_a_trial_that_was_begun_is_there_with_its_settings_after_a_kill(empty_store: Path) -> None:
    begun = Study(REF).draw(plan(RetrainConfig(), SPACE), 0)
    (found,) = Study(REF).trials
    assert (found.state, found.settings) == ("running", begun.settings)


def test_pruned_is_what_is_worse_than_the_median_after_the_warm_up(empty_store: Path) -> None:
    study = Study(REF)
    curves = np.random.default_rng(0).random((5, 6))
    for curve in curves:
        number = study.draw(plan(RetrainConfig(), SPACE), 0).number
        assert not any(study.note_epoch(number, epoch, value) for epoch, value in enumerate(curve, 1))
        study.end(number, 1.0, curve.min())
    number = study.draw(plan(RetrainConfig(), SPACE), 0).number
    mine = np.linspace(0.7, 0.3, 6)
    expected = [epoch >= 2 and mine[:epoch].min() > np.median(curves[:, epoch - 1]) for epoch in range(1, 7)]
    assert [study.note_epoch(number, epoch, value) for epoch, value in enumerate(mine, 1)] == expected
    assert any(expected)
    assert not all(expected[1:])


def test_the_best_is_complete_and_the_first_of_equal_ones(empty_store: Path) -> None:
    for monitor, best in (("val_loss", 1), ("val_accuracy", 4)):
        study = Study(REF.model_copy(update={"folder": f"sweeps/{monitor}", "monitor": monitor}))
        for value in (0.5, 0.1, 0.1, None, 0.9):
            number = study.draw(plan(RetrainConfig(), SPACE), 0).number
            study.note_epoch(number, 1, 0.0 if value is None else value)
            study.end(number, 1.0, value)
        assert study.best
        assert study.best.number == best


def test_a_line_that_was_cut_off_by_a_kill_is_mended(empty_store: Path) -> None:
    run(Study(REF), 3)
    journal = store.path(REF.folder) / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "wor')
    Study.mend(REF)
    assert len(run(Study(REF), 1)) == 4


@pytest.mark.parametrize(
    "line", [b"{]\n", b"null\n", b'{"op_code": "4", "worker_id": "w"}\n', b'{"op_code": 4, "worker_id": "w"}\n']
)
def test_a_bad_line_in_the_middle_costs_the_trials_after_it(empty_store: Path, line: bytes) -> None:
    before = run(Study(REF), 3)
    journal = store.path(REF.folder) / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    journal.write_bytes(b"".join([*lines[:middle], line, *lines[middle:]]))
    Study.mend(REF)
    kept = Study(REF).trials
    assert len(kept) < 3
    assert run(Study(REF), 3 - len(kept)) == before
    assert len(list(journal.parent.glob(".damaged-journal.log-*"))) == 1


@pytest.mark.parametrize("line", [b'{"op_code": 99, "worker_id": "x"}\n', b'{"op_code": 4, "worker_id": "w"}\n'])
def test_a_line_that_optuna_refuses_costs_no_trial_before_it(empty_store: Path, line: bytes) -> None:
    before = run(Study(REF), 3)
    journal = store.path(REF.folder) / "journal.log"
    content = journal.read_bytes()
    journal.write_bytes(content + line)
    Study.mend(REF)
    assert journal.read_bytes() == content
    assert [trial.settings for trial in Study(REF).trials] == before


def test_a_journal_that_can_not_be_copied_just_now_stays(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Study(REF), 3)
    journal = store.path(REF.folder) / "journal.log"
    content = journal.read_bytes()

    def stumble(file: str, **lock: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(optuna.storages.journal, "JournalFileBackend", stumble)
    with pytest.raises(OSError, match="Input/output error"):
        Study.mend(REF)
    assert journal.read_bytes() == content
    assert not list(journal.parent.glob(".damaged-*"))


def test_trials_are_shared_by_the_sweeps_whose_figures_are_the_same(empty_store: Path, digits: DatasetRef) -> None:
    def folder(config: dict[str, Any], space: Any = SPACE, data: DatasetRef = digits) -> str:
        settings = RetrainConfig.model_validate(config)
        return study_of(settings, plan(settings, space), data).folder

    same = folder({})
    assert folder({"gate": {"rule": "better"}, "registry": {"name": "x"}, "training": {"memory_budget": 9}}) == same
    assert folder({"training": {"epochs": 3}}) != same
    assert folder({"training": {"seed": 1}}) != same
    assert folder({}, {"training.epochs": {"int": [1, 2]}}) != same
    assert folder({}, data=digits.model_copy(update={"digest": "another"})) != same


def test_when_all_trials_fail_it_is_one_sentence(empty_store: Path) -> None:
    study = Study(REF)
    for _ in range(2):
        study.end(study.draw(plan(RetrainConfig(), SPACE), 0).number, 1.0, reason="The loss must stay finite.")
    with pytest.raises(TrialError, match=r"none of 2 is complete\. The first: The loss must stay finite"):
        choose_winner.fn(RetrainConfig(), SPACE, REF)


def test_the_card_tells_all_and_what_it_says_to_paste_works(empty_store: Path) -> None:
    config = RetrainConfig.model_validate({"training": {"epochs": 7}})
    study = Study(REF)
    run(study, 6)
    study.note_epoch(study.draw(SPACE, 0).number, 1, 3.0)
    study.end(6, 1.0)
    study.end(study.draw(SPACE, 0).number, 1.0, reason="out | of memory")
    assert study.best
    card = sweep_card.draw(config, SPACE, study.trials, study.best, study.importances())
    assert "8 trials: 6 complete, 1 failed, 1 pruned. The best by val_loss is trial" in card
    assert card.count("data:image/png;base64,") == 3
    assert "out \\| of memory" in card
    pasted = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    assert RetrainConfig.model_validate(pasted) == configured(config, study.best.settings)
    words = shlex.split(card.rpartition("To reproduce: `")[2].rstrip().rstrip("`"))
    assert words[:6] == ["layerflow", "sweep", "--training.epochs", "7", "--trials", "8"]
    again: dict[str, Any] = {}
    for flag, line in zip(words[6::2], words[7::2], strict=True):
        assert flag == "--over"
        again |= yaml.safe_load(line)
    assert plan(config, again) == plan(config, SPACE)
