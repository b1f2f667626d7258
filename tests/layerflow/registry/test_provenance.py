"""What every version says of how it came about, and of the packages that made it: read by the official schemas."""

import json
from collections.abc import Callable, Iterator
from email.message import Message
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerflow import checksums
from layerflow.outcomes import Promotion
from layerflow.registry import answers, layout, sbom, versions
from layerflow.registry.layout import PROVENANCE, RECEIPT, SBOM
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


@pytest.fixture
def other_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Lets packages be installed, each by the fields of its metadata."""
    sbom.packages.cache_clear()

    def install(*packages: dict[str, str]) -> None:
        found = []
        for fields in packages:
            about = Message()
            for name, value in fields.items():
                for each in value.split("|"):
                    about[name.replace("_", "-")] = each
            found.append(SimpleNamespace(metadata=about))
        monkeypatch.setattr(metadata, "distributions", lambda: found)

    yield install
    sbom.packages.cache_clear()


def provenance_of(folder: Path) -> dict:
    return json.loads((folder / PROVENANCE).read_text())


def test_the_provenance_is_of_every_file_that_was_there_and_says_what_the_receipt_does(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    decide("good")
    folder = layout.home(NAME) / "1"
    found, receipt = provenance_of(folder), json.loads((folder / RECEIPT).read_text())
    files = checksums.digests(folder)
    for name in (PROVENANCE, checksums.DIGESTS):
        del files[name]
    assert {each["name"]: each["digest"]["sha256"] for each in found["subject"]} == files
    build, run = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert build["externalParameters"]["config"] == receipt["config"]
    inputs = {
        each["name"]: each.get("digest", {}).get("sha256") or each["uri"] for each in build["resolvedDependencies"]
    }
    good = contenders["good"]
    assert inputs["dataset digits"] == good.data.digest
    assert inputs["code of the training"] == receipt["code"]
    assert inputs["keras"] == f"pkg:pypi/keras@{metadata.version('keras')}"
    assert run["metadata"] == {"invocationId": "run", "finishedOn": receipt["created"]}
    assert run["builder"]["version"] == receipt["versions"]


def test_the_provenance_is_an_in_toto_statement_with_that_of_slsa(decide: Decide) -> None:
    attestation = pytest.importorskip("in_toto_attestation.v1.statement", reason="the extra sign is not installed")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2

    decide("good")
    found = provenance_of(layout.home(NAME) / "1")
    statement = json_format.ParseDict(found, statement_pb2.Statement())
    attestation.Statement.copy_from_pb(statement).validate()
    predicate = json_format.ParseDict(found["predicate"], provenance_pb2.Provenance())  # refuses unknown fields
    assert predicate.run_details.metadata.finished_on.ToJsonString()[:4].isdecimal()


def test_the_packages_are_those_of_this_environment_in_the_form_of_cyclonedx(decide: Decide) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    decide("good")
    text = (layout.home(NAME) / "1" / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = {each["name"]: each for each in json.loads(text)["components"]}
    for name in ("tensorflow", "keras", "numpy", "layerflow"):
        assert found[name]["version"] == metadata.version(name)
        assert found[name]["purl"] == f"pkg:pypi/{name}@{metadata.version(name)}"
    assert found["layerflow"]["licenses"] == [{"expression": "MIT"}]
    assert found["CPython"]["type"] == "platform"
    wrong = text.replace('"library"', '"book"', 1)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


def test_names_versions_and_licences_of_packages_are_read_as_they_are_meant(
    other_packages: Callable[..., None],
) -> None:
    other_packages(
        {"Name": "My_Package.x", "Version": "1.0+cu12", "License_Expression": "MIT OR Apache-2.0", "License": "no"},
        {"Name": "long", "Version": "2", "License": "x" * 101, "Classifier": "A :: B|License :: OSI Approved :: BSD"},
        {"Name": "short", "Version": "3", "License": " ISC "},
        {"Name": "unknown", "Version": "4", "License": "UNKNOWN"},
        {"Name": "short", "Version": "0", "License": "of a path that comes later"},
        {"Summary": "left behind by an uninstallation"},
    )
    assert [(each["purl"], each.get("licenses")) for each in sbom.packages()] == [
        ("pkg:pypi/long@2", [{"license": {"name": "BSD"}}]),
        ("pkg:pypi/my-package-x@1.0%2Bcu12", [{"expression": "MIT OR Apache-2.0"}]),
        ("pkg:pypi/short@3", [{"license": {"name": "ISC"}}]),
        ("pkg:pypi/unknown@4", None),
    ]


def test_the_same_packages_have_the_same_number(other_packages: Callable[..., None]) -> None:
    other_packages({"Name": "one", "Version": "1"})
    number = json.loads(sbom.bill_of_materials("2026-11-24T03:00:00+00:00"))["serialNumber"]
    assert json.loads(sbom.bill_of_materials("2027-11-24T03:00:00+00:00"))["serialNumber"] == number
    sbom.packages.cache_clear()
    other_packages({"Name": "one", "Version": "2"})
    assert json.loads(sbom.bill_of_materials("2026-11-24T03:00:00+00:00"))["serialNumber"] != number


def test_an_approval_keeps_the_packages_of_the_run_that_made_the_model(
    decide: Decide, other_packages: Callable[..., None]
) -> None:
    decide("good", approval="always")
    other_packages({"Name": "other", "Version": "1"})
    answers.settle(NAME, 1, answers.answer(True, "ann", "fine"))
    folder = layout.home(NAME) / "1"
    assert '"keras"' in (folder / SBOM).read_text()
    assert "pkg:pypi/keras@" in (folder / PROVENANCE).read_text()
    assert layout.RUN not in (folder / PROVENANCE).read_text()
    assert versions.damage(NAME, 1) is None


def test_a_rollback_keeps_the_packages_of_the_run_that_made_the_model(
    small: Callable[..., int], other_packages: Callable[..., None]
) -> None:
    other_packages({"Name": "first", "Version": "1"})
    small("one")
    sbom.packages.cache_clear()
    other_packages({"Name": "second", "Version": "1"})
    small("two")
    assert roll_back("drill").version == 3
    kept, made = (layout.home("drill") / str(number) for number in (1, 3))
    assert (made / SBOM).read_bytes() == (kept / SBOM).read_bytes()
    assert "pkg:pypi/first@1" in (made / PROVENANCE).read_text()
    assert "pkg:pypi/second@1" in (layout.home("drill") / "2" / PROVENANCE).read_text()
    assert versions.damage("drill", 3) is None


def test_a_version_of_an_earlier_layerflow_is_sound_and_is_restored_without_packages(
    small: Callable[..., int],
) -> None:
    small("one")
    small("two")
    folder = layout.home("drill") / "1"
    for name in (SBOM, PROVENANCE):
        (folder / name).unlink()
    checksums.write_digests(folder)
    ledger = read_ledger("drill")
    assert ledger.published
    entry = ledger.published[1].model_copy(update={"sums": checksums.sha256(folder / checksums.DIGESTS)})
    write_ledger("drill", ledger.model_copy(update={"published": {**ledger.published, 1: entry}}))
    assert versions.damage("drill", 1) is None
    assert roll_back("drill").version == 3
    restored = layout.home("drill") / "3"
    assert not (restored / SBOM).exists()
    inputs = provenance_of(restored)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["name"] for each in inputs] == ["dataset digits"]
    assert versions.damage("drill", 3) is None
