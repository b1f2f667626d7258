"""Settings of a file and of flags, laid over each other."""

from pathlib import Path

import pytest

from cli.given import settings_of
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError


def test_a_flag_replaces_its_own_field_of_a_file_at_any_depth(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text("data: {name: mnist, splits: {train: 'train[:80%]', test: test}}\ntraining: {epochs: 20}\n")
    flags = RetrainConfig.model_validate({"data": {"splits": {"train": "train[:50%]"}}, "training": {"seed": 1}})
    given = settings_of(file, flags)
    assert given.data.name == "mnist"
    assert given.data.splits.model_dump() == {"train": "train[:50%]", "validation": None, "test": "test"}
    assert (given.training.epochs, given.training.seed) == (20, 1)


@pytest.mark.parametrize("text", ["data: [1]", "data: {splits: 3}"])
def test_a_group_that_is_no_mapping_is_refused_though_a_flag_goes_into_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(text)
    flags = RetrainConfig.model_validate({"data": {"splits": {"train": "train"}}})
    with pytest.raises(ConfigError, match="data"):
        settings_of(file, flags)
