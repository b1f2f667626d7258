"""What a run tells Prefect of what it made: assets, whose keys are addresses whatever users call their data."""

from hypothesis import given
from hypothesis import strategies as st
from prefect.context import AssetContext

from layerflow.config import RetrainConfig
from layerflow.outcomes import Promotion
from layerflow.settings.data import DataConfig
from tasks import assets


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_a_folder_by_any_name_is_an_asset_of_its_own(name: str) -> None:
    one, other = (
        RetrainConfig.model_validate({"data": {"name": "folder", "path": f"/data/{each}"}})
        for each in (name, f"{name}x")
    )
    keys = {assets._dataset(one).key, assets._dataset(other).key, assets._trained(one.registry_name).key}
    assert len(keys) == 3
    assert all(key.isascii() and key.startswith("layerflow://") for key in keys)


def test_a_dataset_of_tensorflow_datasets_has_its_name() -> None:
    config = RetrainConfig(data=DataConfig(name="imagenet_v2/matched-frequency:3.0.0"))
    assert assets._dataset(config).key == "layerflow://datasets/imagenet_v2-matched-frequency"


def test_a_task_tells_its_publication_and_without_one_nothing_happens() -> None:
    facts = {"code": "promoted_first", "reason": "first", "name": "mlp-digits", "version": 1, "published": "models"}
    figures = {"accuracy": 0.9, "test_examples": 360, "champion_version": None, "comparison": None, "changes": ()}
    made = Promotion.model_validate({**facts, **figures, "receipt": "receipt.json", "report": "report.html"})
    assets.published(made)
    with AssetContext() as context:
        assets.published(made)
    (asset,) = context.downstream_assets
    assert asset.key == "layerflow://models/mlp-digits"
    assert {each.key for each in context.direct_asset_dependencies} == {"layerflow://trained/mlp-digits"}
    assert context.materialization_metadata[asset.key]["code"] == "promoted_first"
