"""`layerflow verify` with a key, and `layerflow retrain` with one that can't sign, in processes of their own."""

import shutil
from pathlib import Path

import pytest

from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from tests.command import layerflow
from tests.shared import copy_artifact

pytestmark = pytest.mark.process  # the exit status and the streams are what is claimed


@pytest.fixture
def signed(first_run: Retrained, session_store: Path, empty_store: Path, signing_key: Path) -> Path:
    """The folder of the first run's model, published and signed."""
    for record in (first_run.data, first_run.export):
        copy_artifact(record.folder, session_store, empty_store)
    challenger = Challenger(*(getattr(first_run, part) for part in Challenger._fields))
    promote(RetrainConfig.model_validate({"registry": {"sign": {"key": signing_key}}}), challenger, "signed")
    return empty_store / "models" / "mlp-digits" / "1"


def test_a_signed_version_is_verified_by_its_public_key_and_then_loaded(
    signed: Path, signing_key: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(signed, tmp_path / "alone")
    done = layerflow("verify", str(alone), "--public-key", str(signing_key.with_suffix(".pub")), store=tmp_path / "no")
    assert done.returncode == 0, done.stderr
    assert "it is version 1 of mlp-digits" in done.stdout
    assert "golden examples answer the same" in done.stdout
    (alone / "assets.extra" / "sbom.cdx.json").write_text("{}")
    done = layerflow("verify", str(alone), "--public-key", str(signing_key.with_suffix(".pub")), store=tmp_path / "no")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"layerflow: {alone} must be, byte for byte, what was signed, and assets.extra/sbom.cdx.json was changed "
        "after it was signed; don't use it, and get it again from whoever signed it.\n"
    )


def test_a_key_that_can_not_sign_ends_the_command_at_once(tmp_path: Path, signing_key: Path) -> None:
    done = layerflow("retrain", "--registry.sign.key", str(tmp_path / "gone.pem"), store=tmp_path / "store")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("layerflow: registry.sign.key must be a PEM file that can be read.")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_rollback_takes_the_key_too(signed: Path, empty_store: Path, signing_key: Path) -> None:
    done = layerflow("rollback", "--sign.key", str(signing_key), store=empty_store)
    assert done.returncode == 2
    assert "It has none; use --to with a version" in done.stderr
    assert layerflow("models", "verify", store=empty_store).returncode == 0
