"""Rollback: an earlier version's bytes under the next number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from layerflow import checksums, store
from layerflow.checksums import DIGESTS, write_digests
from layerflow.errors import RegistryError, VerificationError
from layerflow.outcomes import Promotion
from layerflow.registry import layout, ledger, versions
from layerflow.registry.model_identity import former_identity, model_identity
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back

NAME = "mlp-digits"
Decide = Callable[..., Promotion]


def model_bytes(version: int) -> dict[str, str]:
    """Digests of a version's files, without what is the version's own."""
    files = checksums.digests(layout.home(NAME) / str(version))
    own = (DIGESTS, layout.RECEIPT, layout.CARD, layout.PROVENANCE)
    return {name: digest for name, digest in files.items() if name not in own}


def test_a_name_that_is_a_path_makes_no_folder(empty_store: Path) -> None:
    with pytest.raises(RegistryError, match="None is; run layerflow retrain"):
        roll_back("../../x")
    assert not empty_store.exists()


def test_the_version_before_is_restored_byte_for_byte_as_the_next_one(decide: Decide) -> None:
    decide("poor")
    decide("good")
    done = roll_back(NAME)
    assert (done.version, done.restored, done.instead_of) == (3, 1, 2)
    assert versions.numbers(NAME) == [3, 2, 1]
    assert model_bytes(3) == model_bytes(1) != model_bytes(2)
    assert versions.model_digest(NAME, 3) == versions.model_digest(NAME, 1) == done.digest
    receipt = json.loads((store.path(done.published) / layout.RECEIPT).read_text())
    assert receipt["version"] == 3
    assert receipt["decision"]["code"] == "rolled_back"
    assert receipt["decision"]["reason"] == "version 1 restored in place of 2"
    assert ledger.read_ledger(NAME).rolled_back == (versions.model_digest(NAME, 2),)


def test_again_and_again_goes_further_back_and_never_to_what_was_taken_back(decide: Decide) -> None:
    for who in ("poor", "similar", "good"):
        decide(who, force="a test")
    assert [roll_back(NAME).restored for _ in range(2)] == [2, 1]
    with pytest.raises(RegistryError, match="It has none; use --to with a version"):
        roll_back(NAME)
    back = roll_back(NAME, to=3)
    assert (back.version, back.restored) == (6, 3)
    assert versions.model_digest(NAME, 3) not in ledger.read_ledger(NAME).rolled_back


def test_what_was_taken_back_stays_out_when_it_is_made_again_with_other_bytes(
    decide: Decide, contenders: dict[str, Challenger], remade: Callable[[Challenger], Challenger]
) -> None:
    decide("poor")
    decide("good")
    again = remade(contenders["good"])
    assert again.export.digest != contenders["good"].export.digest, "it was saved at another time"
    assert decide(again).code == "unchanged"
    roll_back(NAME)
    assert decide(again).code == "kept_rolled_back"


def test_what_can_not_be_restored_is_one_sentence_and_changes_nothing(decide: Decide) -> None:
    with pytest.raises(RegistryError, match="None is; run layerflow retrain"):
        roll_back(NAME)
    decide("poor")
    with pytest.raises(RegistryError, match="an earlier version with another model"):
        roll_back(NAME)
    with pytest.raises(RegistryError, match=r"another model than the live version\. Received: 1"):
        roll_back(NAME, to=1)
    with pytest.raises(RegistryError, match=r"must be one that is published \(1\). Received: 4"):
        roll_back(NAME, to=4)
    decide("good")
    (layout.home(NAME) / "1" / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(VerificationError, match=r"saved_model\.pb was changed"):
        roll_back(NAME)
    assert versions.numbers(NAME) == [2, 1]
    assert ledger.read_ledger(NAME).rolled_back == ()


def test_a_version_that_lost_its_receipt_can_be_rolled_back_from(decide: Decide) -> None:
    decide("poor")
    decide("good")
    (layout.home(NAME) / "2" / layout.RECEIPT).write_text("no receipt")
    assert roll_back(NAME).restored == 1


def as_an_earlier_layerflow_wrote(name: str) -> None:
    """Turn the ledger into one whose identities of models have the code of the export in them."""
    receipts = {number: versions.receipt_of(name, number) for number in versions.numbers(name)}
    for number, receipt in receipts.items():
        assert receipt
        receipt["export"]["code"] = f"the code of that day {number % 2}"
        (layout.home(name) / str(number) / layout.RECEIPT).write_text(json.dumps(receipt))
        write_digests(layout.home(name) / str(number))
    former = {model_identity(receipt): former_identity(receipt) for receipt in receipts.values() if receipt}
    known = ledger.read_ledger(name).model_dump(mode="json", exclude={"scheme"})
    known["rolled_back"] = [former[model] for model in known["rolled_back"]]
    for number, entry in known["published"].items():
        entry["model"] = former[entry["model"]]
        entry["sums"] = checksums.sha256(layout.home(name) / number / DIGESTS)
    for file in (ledger.LEDGER, ledger.COPY):
        digest = ledger._digest(known)
        (layout.home(name) / file).write_text(json.dumps({**known, "digest": digest}))


def test_what_an_earlier_layerflow_rolled_back_stays_rolled_back(decide: Decide) -> None:
    decide("poor")
    decide("good")
    roll_back(NAME)
    as_an_earlier_layerflow_wrote(NAME)
    assert [versions.damage(NAME, number) for number in versions.numbers(NAME)] == [None] * 3
    assert decide("good").code == "kept_rolled_back"
    assert decide("poor").code == "unchanged"
    assert roll_back(NAME, to=2).version == 4, "the rollback of an earlier layerflow's version"
    assert json.loads((layout.home(NAME) / ledger.LEDGER).read_text())["scheme"] == 2
    assert ledger.read_ledger(NAME).rolled_back == (versions.model_digest(NAME, 1),)
