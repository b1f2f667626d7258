"""Names for versions."""

from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from layerflow.errors import RegistryError
from layerflow.outcomes import Promotion
from layerflow.registry import versions
from layerflow.registry.aliases import aliases_of, remove_alias, serving_config, set_alias
from layerflow.registry.rollback import roll_back

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def test_live_and_previous_follow_the_versions_and_an_own_alias_stays(decide: Decide) -> None:
    decide("poor")
    assert aliases_of(NAME) == {"live": 1}
    decide("good")
    set_alias(NAME, "production", 1)
    assert aliases_of(NAME) == {"live": 2, "previous": 1, "production": 1}
    roll_back(NAME)
    assert aliases_of(NAME) == {"live": 3, "production": 1}
    set_alias(NAME, "production", 3)
    remove_alias(NAME, "production")
    assert aliases_of(NAME) == {"live": 3}


def test_a_version_with_an_alias_is_not_pruned(decide: Decide) -> None:
    decide("poor")
    set_alias(NAME, "first", 1)
    for number in range(3):
        decide(["good", "poor"][number % 2], {"keep": 1}, force="a test")
    assert versions.numbers(NAME) == [4, 3, 1]
    assert aliases_of(NAME)["first"] == 1


@pytest.mark.parametrize("alias", ["live", "candidate", "Prod", "1", "a b", "", "a" * 51])
def test_an_alias_that_can_not_be_set_is_one_sentence(decide: Decide, alias: str) -> None:
    with pytest.raises(RegistryError, match="ALIAS must be lower-case letters"):
        set_alias(NAME, alias, 1)


def test_an_alias_of_a_version_that_is_not_there_is_refused(decide: Decide) -> None:
    decide("poor")
    with pytest.raises(RegistryError, match="must be one that is published"):
        set_alias(NAME, "production", 2)
    with pytest.raises(RegistryError, match="ALIAS must be one that was set"):
        remove_alias(NAME, "production")


def server_config() -> type:
    """The part of TF Serving's ``ModelServerConfig`` that is used here, with its own field numbers."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="serving", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str, bool]) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for called, number, kind, of, many in fields:
            label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
            made.field.add(name=called, number=number, type=kind, type_name=of or None, label=label)
        return made

    message("Specific", ("versions", 1, field.TYPE_INT64, "", True))
    message("Policy", ("specific", 102, field.TYPE_MESSAGE, ".serving.Specific", False))
    model = message(
        "Model",
        ("name", 1, field.TYPE_STRING, "", False),
        ("base_path", 2, field.TYPE_STRING, "", False),
        ("model_platform", 4, field.TYPE_STRING, "", False),
        ("model_version_policy", 7, field.TYPE_MESSAGE, ".serving.Policy", False),
        ("version_labels", 8, field.TYPE_MESSAGE, ".serving.Model.VersionLabelsEntry", True),
    )
    entry = model.nested_type.add(name="VersionLabelsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    message("List", ("config", 1, field.TYPE_MESSAGE, ".serving.Model", True))
    message("Server", ("model_config_list", 1, field.TYPE_MESSAGE, ".serving.List", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.Server"))


def test_the_aliases_are_version_labels_of_tf_serving(decide: Decide) -> None:
    decide("poor")
    decide("good")
    set_alias(NAME, "production", 1)
    (model,) = text_format.Parse(serving_config(NAME, "/models/a"), server_config()()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (NAME, "/models/a", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"live": 2, "previous": 1, "production": 1}
