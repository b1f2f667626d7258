"""Files in other formats are published, verified, and carried along with their version."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, VerificationError
from layerflow.outcomes import FormatProof, FormatsProof, Promotion
from layerflow.registry import layout, ledger, versions
from layerflow.registry.answers import answer, settle
from layerflow.registry.receipt import Challenger
from layerflow.settings.export import ExportConfig
from tasks.export_formats import require_all

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def with_formats(challenger: Challenger, **content: bytes | None) -> Challenger:
    """The challenger with these files in formats of these names; of those without content, none is proved."""

    def make(folder: Path) -> FormatsProof:
        (folder / "formats").mkdir()
        proofs = []
        for name, data in content.items():
            if data is None:
                proofs.append(FormatProof(name=name, reason="it can't be made"))
                continue
            (folder / "formats" / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            proofs.append(FormatProof(name=name, file=name, digest=digest, size=len(data)))
        (folder / "card.md").write_text("# Other formats\n")
        return FormatsProof(export_digest=challenger.export.digest, formats=tuple(proofs))

    key = hashlib.sha256(repr(content).encode()).hexdigest()
    return challenger._replace(formats=artifacts.make("verify_formats", key, FormatsProof, make))


def published(version: int) -> dict[str, bytes]:
    folder = layout.home(NAME) / str(version) / layout.FORMATS
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}


def test_what_is_proved_is_published_and_its_digests_are_in_receipt_and_list(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    made = decide(with_formats(contenders["good"], onnx=b"one", litert=None))
    assert published(1) == {"onnx": b"one"}
    assert versions.damage(NAME, 1) is None
    receipt = json.loads(store.path(made.receipt).read_text())
    assert [each["name"] for each in receipt["formats"]["formats"]] == ["onnx", "litert"]
    assert "Other formats" in store.path(made.report).read_text()


@pytest.mark.parametrize("harm", ["changed", "lost", "added"])
def test_a_file_that_is_not_the_published_one_is_damage(
    harm: str, decide: Decide, contenders: dict[str, Challenger]
) -> None:
    decide(with_formats(contenders["good"], onnx=b"one"))
    folder = layout.home(NAME) / "1" / layout.FORMATS
    if harm == "lost":
        (folder / "onnx").unlink()
    else:
        (folder / ("onnx" if harm == "changed" else "more")).write_bytes(b"other")
    said = {"changed": "was changed", "lost": "is missing", "added": "does not belong to the model"}[harm]
    assert (versions.damage(NAME, 1) or "").endswith(said)
    with pytest.raises(VerificationError, match=said):
        versions.provenance(layout.home(NAME) / "1")


def test_the_same_model_is_published_again_only_for_a_format_that_the_live_version_has_not(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    good = contenders["good"]
    decide(good)
    assert decide(with_formats(good, onnx=None)).code == "unchanged"
    made = decide(with_formats(good, onnx=b"one"))
    assert (made.code, made.version) == ("promoted_formats", 2)
    assert made.reason == "version 1 is this very model, and has no onnx"
    assert published(2) == {"onnx": b"one"}
    assert decide(with_formats(good, onnx=b"one")).code == "unchanged"
    assert decide(good).code == "unchanged"
    other = decide(with_formats(good, litert=b"two"))
    assert (other.code, other.version) == ("unchanged", 2)
    assert other.reason == (
        "version 2 is this very model; it has onnx, which this run has not, so name all in export.formats to add litert"
    )


def test_the_best_version_stays_the_best_one_where_another_gets_formats(
    decide: Decide, contenders: dict[str, Challenger]
) -> None:
    decide("good")
    decide("poor", force="a test")
    ledger.write_ledger(NAME, ledger.read_ledger(NAME).model_copy(update={"best": 1}))
    assert decide(with_formats(contenders["poor"], onnx=b"one")).version == 3
    assert versions.best_of(NAME) == 1


def test_nobody_is_asked_about_formats_of_the_live_version(decide: Decide, contenders: dict[str, Challenger]) -> None:
    decide("good")
    made = decide(with_formats(contenders["good"], onnx=b"one"), approval="always")
    assert (made.code, made.version) == ("promoted_formats", 2)


def test_a_candidate_that_lacks_a_format_is_asked_about_anew(decide: Decide, contenders: dict[str, Challenger]) -> None:
    assert decide("good", approval="always").candidate == 1
    assert decide("good", approval="always").candidate == 1
    assert decide(with_formats(contenders["good"], onnx=b"one"), approval="always").candidate == 2
    settle(NAME, 2, answer(True, "ann", "fine"))
    assert published(1) == {"onnx": b"one"}


def test_formats_of_another_export_are_refused(decide: Decide, contenders: dict[str, Challenger]) -> None:
    formats = with_formats(contenders["poor"], onnx=b"one").formats
    with pytest.raises(VerificationError, match="they are of another"):
        decide(contenders["good"]._replace(formats=formats))


def test_a_changed_file_of_the_proof_is_not_published(decide: Decide, contenders: dict[str, Challenger]) -> None:
    challenger = with_formats(contenders["good"], onnx=b"one")
    (store.path(challenger.formats.folder) / "formats" / "onnx").write_bytes(b"two")
    with pytest.raises(DamagedError, match="is not what was proved"):
        decide(challenger)
    assert versions.numbers(NAME) == []


def test_a_candidate_keeps_its_formats_until_it_is_approved(decide: Decide, contenders: dict[str, Challenger]) -> None:
    made = decide(with_formats(contenders["good"], onnx=b"one"), approval="always")
    assert made.code == "waiting_for_approval"
    settle(NAME, 1, answer(True, "ann", "fine"))
    assert published(1) == {"onnx": b"one"}
    assert versions.damage(NAME, 1) is None


def test_where_formats_are_required_one_that_is_left_out_ends_the_run(
    shelf: Path, contenders: dict[str, Challenger]
) -> None:
    proof = with_formats(contenders["good"], onnx=b"one", litert=None).formats
    require_all(ExportConfig(formats=("onnx", "litert")), proof)
    with pytest.raises(VerificationError) as caught:
        require_all(ExportConfig(formats=("onnx", "litert"), required=True), proof)
    assert str(caught.value) == (
        "export.required wants every format of export.formats, and litert is left out: it can't be made"
    )


def test_other_formats_change_nothing_before_them() -> None:
    assert ExportConfig(formats='["onnx", "litert", "onnx"]').converted == ("litert", "onnx")
    assert RetrainConfig(export={"formats": "onnx"}).export.converted == ("onnx",)
    assert ExportConfig().converted == ()
