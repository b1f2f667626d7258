"""Signed versions: what the signature is of, what is refused, and that a signing that fails publishes nothing."""

import base64
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cli.models import show_version
from layerflow import checksums
from layerflow.checksums import EXTRA
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, DamagedError, RegistryError, VerificationError
from layerflow.outcomes import Promotion
from layerflow.registry import answers, candidates, layout, signing, versions
from layerflow.registry.layout import PROVENANCE, RECEIPT, SBOM, SIGNATURE
from layerflow.registry.ledger import LEDGER, read_ledger
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back
from layerflow.registry.signatures import Trust, trust_of, verify_signature
from layerflow.settings.gate import PASSWORD, SignConfig
from tests.keys import write_key

pytest.importorskip("model_signing", reason="OpenSSF model signing is not installed: make sign")

NAME, DRILL = "mlp-digits", "drill"
ROOT = Path(__file__).resolve().parents[3]
Decide = Callable[..., Promotion]


@pytest.fixture
def key(signing_key: Path) -> Path:
    """The file of a private key."""
    return signing_key


@pytest.fixture
def trust(key: Path) -> Trust:
    return Trust(public_key=key.with_suffix(".pub"))


@pytest.fixture
def signed(decide: Decide, key: Path) -> Path:
    """The folder of a version that is published and signed."""
    assert decide("good", registry={"sign": {"key": key}}).version == 1
    return layout.home(NAME) / "1"


def refusal(folder: Path, trust: Trust) -> str:
    with pytest.raises(VerificationError) as caught:
        verify_signature(folder, trust)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert sentence.startswith(f"{folder} must be, byte for byte, what was signed, and ")
    return sentence


def signed_files(signature: Path) -> dict[str, str]:
    """What a signature is of, read without layerflow and the library."""
    payload = json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert payload["subject"][0]["name"] == f"{NAME}-1"
    return {each["name"]: each["digest"] for each in payload["predicate"]["resources"]}


def test_a_signature_is_of_every_other_file_of_the_version(signed: Path, trust: Trust) -> None:
    files = checksums.digests(signed)
    assert {SIGNATURE, RECEIPT, checksums.DIGESTS, PROVENANCE, SBOM} < files.keys()
    del files[SIGNATURE]
    assert signed_files(signed / SIGNATURE) == files
    assert verify_signature(signed, trust) == f"the signature is of all {len(files)} files; it is version 1 of {NAME}"
    assert versions.damage(NAME, 1) is None
    assert "receipt" in versions.provenance(signed)


def test_models_show_says_that_a_version_is_signed(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_version(1, NAME, as_json=False)
    assert re.search(r"signed\s+layerflow verify --public-key says by whom", capsys.readouterr().out)


def test_a_byte_that_is_flipped_in_any_file_is_refused_with_its_name(signed: Path, trust: Trust) -> None:
    files = sorted(checksums.digests(signed))
    assert len(files) > 12
    for name in files:
        file = signed / name
        content = file.read_bytes()
        for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
            flipped = bytearray(content)
            flipped[place] ^= 1
            file.write_bytes(flipped)
            assert f"and {name} was changed" in refusal(signed, trust), (name, place)
        file.write_bytes(content)
    verify_signature(signed, trust)


def test_no_byte_of_the_signature_could_be_another(signed: Path, trust: Trust) -> None:
    """Not in its names, the spaces between them, nor in the last letters of what is written in base64."""
    file = signed / SIGNATURE
    content = file.read_text()
    bundle = json.loads(content)
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    payload = envelope["payload"].rstrip("=")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    padding = len(envelope["payload"]) - len(payload)
    others = [
        content + "\n",
        content.replace(",", ", ", 1),
        content.replace("{", '{"mediaType": "a",', 1),
        json.dumps({**bundle, "note": "hidden"}, separators=(",", ":")),
        json.dumps({**bundle, "verificationMaterial": {**material, "publicKey": {}}}, separators=(",", ":")),
        json.dumps({**bundle, "dsseEnvelope": {**envelope, "payloadType": "text"}}, separators=(",", ":")),
        json.dumps({**bundle, "dsseEnvelope": {**envelope, "signatures": []}}, separators=(",", ":")),
        "[]",
        "[" * 100_000,
        "",
    ]
    if padding:  # otherwise, every bit of the last letter is used
        last = letters[letters.index(payload[-1]) + 1]
        others.append(content.replace(envelope["payload"], payload[:-1] + last + "=" * padding))
    for other in others:
        file.write_text(other)
        assert f"{SIGNATURE} was changed, or is not of {trust.public_key}" in refusal(signed, trust), other[:80]


def hidden(folder: Path) -> None:
    (folder / ".hidden").write_text("?")


def of_git(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("?")


def ignored_by_git(folder: Path) -> None:
    (folder / ".gitattributes").write_text("?")


def below_the_signature(folder: Path) -> None:
    (folder / EXTRA / SIGNATURE).write_text("?")


def a_link(folder: Path) -> None:
    (folder / "linked").symlink_to(folder / "saved_model.pb")


def a_link_in_place(folder: Path) -> None:
    (folder / "saved_model.pb").rename(folder.parent / "saved_model.pb")
    (folder / "saved_model.pb").symlink_to("../saved_model.pb")


def a_linked_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder / EXTRA)


def removed(folder: Path) -> None:
    (folder / EXTRA / "labels.txt").unlink()


def flipped(folder: Path) -> None:
    content = (folder / RECEIPT).read_bytes()
    (folder / RECEIPT).write_bytes(content.replace(b"1", b"0", 1))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (hidden, ".hidden was added"),
        (of_git, ".git/config was added"),
        (ignored_by_git, ".gitattributes was added"),
        (below_the_signature, f"{EXTRA}/{SIGNATURE} was added"),
        (a_link, "linked is neither a file nor a folder"),
        (a_link_in_place, "saved_model.pb is neither a file nor a folder"),
        (a_linked_folder, "more is neither a file nor a folder"),
        (removed, "labels.txt is missing"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_file_that_is_added_or_removed_is_refused(
    harm: Callable[[Path], None], said: str, signed: Path, trust: Trust
) -> None:
    harm(signed)
    assert said in refusal(signed, trust)


def test_a_version_without_a_signature_is_refused_where_one_is_wanted(signed: Path, trust: Trust) -> None:
    (signed / SIGNATURE).unlink()
    with pytest.raises(VerificationError, match=rf"must be signed\. It has no {re.escape(SIGNATURE)}"):
        verify_signature(signed, trust)


def test_a_signature_of_another_key_is_refused(signed: Path, tmp_path: Path, trust: Trust, key: Path) -> None:
    other = write_key(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
    stranger = Trust(public_key=other.with_suffix(".pub"))
    assert f"{SIGNATURE} was changed, or is not of {stranger.public_key}" in refusal(signed, stranger)
    (signed / SIGNATURE).unlink()
    signing.sign(signed, SIGNATURE, SignConfig(key=other))
    assert f"{SIGNATURE} was changed, or is not of {trust.public_key}" in refusal(signed, trust)
    verify_signature(signed, stranger)


def test_whoever_signs_by_hand_can_not_leave_a_file_out(signed: Path, trust: Trust, key: Path) -> None:
    """A signature names the files that it ignores, and the library passes over them."""
    from model_signing import hashing, signing

    (signed / SIGNATURE).unlink()
    (signed / ".gitignore").write_text("*")
    hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE, "saved_model.pb"])
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashed).sign(
        signed, signed / SIGNATURE
    )
    assert ".gitignore was added" in refusal(signed, trust)
    (signed / ".gitignore").unlink()
    assert "saved_model.pb was added" in refusal(signed, trust)


def test_an_older_version_is_refused_under_the_number_of_a_newer_one(signed: Path, trust: Trust) -> None:
    shutil.copytree(signed, signed.with_name("2"))
    assert f"{RECEIPT} is of version 1 of {NAME}, which was put in place of version 2" in refusal(
        signed.with_name("2"), trust
    )
    verify_signature(shutil.copytree(signed, signed.with_name("for the auditor")), trust)


def test_what_is_signed_must_agree_with_its_list_and_its_receipt(signed: Path, trust: Trust, key: Path) -> None:
    (signed / SIGNATURE).unlink()
    listed = (signed / checksums.DIGESTS).read_text()
    (signed / checksums.DIGESTS).write_text(listed.replace("a", "b", 1))
    signing.sign(signed, SIGNATURE, SignConfig(key=key))
    assert re.search("was changed|does not belong to the model|is missing", refusal(signed, trust))


@pytest.mark.parametrize("harm", ["changed", "lost", "added"])
def test_models_verify_sees_a_signature_that_is_not_the_published_one(
    harm: str, decide: Decide, key: Path, contenders: dict[str, Challenger]
) -> None:
    decide("good", registry={} if harm == "added" else {"sign": {"key": key}})
    file = layout.home(NAME) / "1" / SIGNATURE
    if harm == "lost":
        file.unlink()
    else:
        file.write_text("{}")
    said = {"changed": "was changed", "lost": "is missing", "added": "does not belong to the model"}[harm]
    assert versions.damage(NAME, 1) == f"{SIGNATURE} {said}"
    with pytest.raises(VerificationError, match=f"{SIGNATURE} {said}"):
        versions.provenance(file.parent)


def test_without_a_signer_nothing_is_signed_the_library_is_not_imported_and_the_ledger_is_as_it_was(
    decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)  # to import it would fail
    decide("good")
    folder = layout.home(NAME) / "1"
    assert not (folder / SIGNATURE).exists()
    assert versions.damage(NAME, 1) is None
    assert "signature" not in (layout.home(NAME) / LEDGER).read_text()


def test_a_signing_that_fails_publishes_nothing(
    small: Callable[..., int], key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_signing import signing as library

    small("one")
    before = read_ledger(DRILL)

    def fail(*arguments: object) -> None:
        raise RuntimeError("the token Zq7 expired")

    with monkeypatch.context() as patch:
        patch.setattr(library.Config, "sign", fail)
        with pytest.raises(RegistryError) as caught:
            small("two", sign=SignConfig(key=key))
    assert str(caught.value) == (
        f"{DRILL}-2 must be signed by registry.sign before it is published. It could not be (RuntimeError), so nothing "
        "was published; fix the cause and re-run the command."
    )
    assert versions.numbers(DRILL) == [1]
    assert read_ledger(DRILL).published == before.published
    assert sorted(each.name for each in layout.home(DRILL).iterdir() if each.is_dir()) == ["1"]
    assert small("two", sign=SignConfig(key=key)) == 3, "no number is given twice"


def test_a_key_that_is_gone_when_the_model_is_published_publishes_nothing(decide: Decide, key: Path) -> None:
    with pytest.raises(ConfigError, match=r"registry\.sign\.key must be a PEM file that can be read\. .*No such file"):
        decide("good", registry={"sign": {"key": key.with_name("gone.pem")}})
    assert versions.numbers(NAME) == []


def test_a_restored_version_is_signed_anew_or_a_warning_is_logged(
    small: Callable[..., int],
    key: Path,
    trust: Trust,
    caplog: pytest.LogCaptureFixture,
) -> None:
    signer = SignConfig(key=key)
    for label in ("one", "two"):
        small(label, sign=signer)
    assert roll_back(DRILL, signer=signer).version == 3
    restored = layout.home(DRILL) / "3"
    assert verify_signature(restored, trust).endswith(f"it is version 3 of {DRILL}")
    assert versions.damage(DRILL, 3) is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert roll_back(DRILL, to=2).version == 4
    assert not (layout.home(DRILL) / "4" / SIGNATURE).exists()
    assert versions.damage(DRILL, 4) is None
    assert f"version 4 of {DRILL} is not signed, though version 3 is" in caplog.text
    ledger = read_ledger(DRILL)
    with pytest.raises(ConfigError, match="No such file"):
        roll_back(DRILL, to=3, signer=SignConfig(key=key.with_name("gone.pem")))
    assert read_ledger(DRILL) == ledger


def test_an_approved_candidate_is_signed_by_the_settings_of_the_run_that_asked(
    decide: Decide, key: Path, trust: Trust
) -> None:
    decide("good", approval="always", registry={"sign": {"key": key}})
    assert not (candidates.folder_of(NAME, 1) / SIGNATURE).exists()
    answers.settle(NAME, 1, answers.answer(True, "ann", "fine"))
    assert verify_signature(layout.home(NAME) / "1", trust).endswith(f"it is version 1 of {NAME}")


def test_nothing_of_the_key_is_in_the_version_the_ledger_or_the_log(
    decide: Decide, key: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(0)
    sealed = write_key(tmp_path / "sealed-Zq7.pem", ec.generate_private_key(ec.SECP384R1()), "Zq7word")
    monkeypatch.setenv(PASSWORD, "Zq7word")
    decide("good", registry={"sign": {"key": sealed}})
    assert verify_signature(layout.home(NAME) / "1", Trust(public_key=sealed.with_suffix(".pub")))
    for file in (each for each in layout.home(NAME).rglob("*") if each.is_file()):
        assert b"Zq7" not in file.read_bytes(), file
    assert "Zq7" not in caplog.text
    assert "Zq7" not in RetrainConfig(registry={"sign": {"key": sealed}}).as_flags


@pytest.mark.parametrize(
    ("make", "password", "said"),
    [
        (lambda: ec.generate_private_key(ec.SECP256K1()), "", r"P-521\. .* is another \(secp256k1\); make one with"),
        (lambda: rsa.generate_private_key(65537, 2048), "", r"P-521\. .* is another \(RSAPrivateKey\); make one with"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "sealed", rf"It has one; set {PASSWORD} in the environment"),
    ],
)
def test_a_key_that_can_not_sign_is_one_sentence_before_anything_is_trained(
    make: Callable[[], ec.EllipticCurvePrivateKey], password: str, said: str, key: Path
) -> None:
    write_key(key, make(), password)
    with pytest.raises(ConfigError, match=said):
        signing.require_signer(SignConfig(key=key))


def test_a_wrong_password_and_one_too_many_are_one_sentence(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "Zq7word")
    with pytest.raises(ConfigError, match=rf"It has none; unset {PASSWORD}"):
        signing.require_signer(SignConfig(key=key))
    write_key(key, ec.generate_private_key(ec.SECP256R1()), "another")
    with pytest.raises(ConfigError, match=r"can't be read so; name another file, or set the right password") as caught:
        signing.require_signer(SignConfig(key=key))
    assert "Zq7word" not in str(caught.value)
    key.write_text("no key")
    with pytest.raises(ConfigError, match=r"must be the PEM file of a private key"):
        signing.require_signer(SignConfig(key=key))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keyless": True, "key": "a.pem"}, "key or keyless, and not both"),
        ({"certificate": "a.pem"}, "certificate together with the private key"),
        ({"chain": "a.pem", "key": "b.pem"}, "chain together with the certificate"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SignConfig.model_validate(settings)


def test_without_the_extra_one_sentence_names_the_command(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "model_signing" else real(name))
    ending = (
        r"needs model_signing, which is not installed; pip install 'layerflow\[sign\]', or in a clone: make sign\.$"
    )
    with pytest.raises(ConfigError, match=f"^registry.sign {ending}"):
        signing.require_signer(SignConfig(key=key))
    with pytest.raises(ConfigError, match=f"^The signature of a version {ending}"):
        verify_signature(key.parent, Trust(public_key=key))
    signing.require_signer(SignConfig())


def test_the_workload_without_an_identity_is_one_sentence_and_opens_no_browser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sigstore import oidc

    monkeypatch.setattr(oidc, "detect_credential", lambda *arguments: None)
    with pytest.raises(ConfigError, match=r"must find the identity of this workload.*\(none was found\); run there"):
        signing.require_signer(SignConfig(keyless=True))


def test_what_is_trusted_is_one_thing() -> None:
    assert trust_of(None, None, None, None) is None
    assert trust_of(Path("a"), None, None, None) == Trust(public_key=Path("a"))
    for wrong in ((Path("a"), Path("b"), None, None), (None, None, "ann", None), (Path("a"), None, "ann", "b")):
        with pytest.raises(ConfigError, match="give one of the three"):
            trust_of(*wrong)


def test_a_public_key_that_is_none_is_one_sentence(signed: Path, key: Path) -> None:
    for file in (key, key.with_name("gone.pub"), signed / "saved_model.pb"):
        with pytest.raises(ConfigError, match=r"--public-key must be the PEM file of a public key on P-256"):
            verify_signature(signed, Trust(public_key=file))
    with pytest.raises(ConfigError, match=r"--certificate-chain must be the PEM file of the certificates"):
        verify_signature(signed, Trust(chain=key))


def certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, ca: bool
) -> x509.Certificate:
    """A certificate for signing, or an authority's."""
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer)]
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(named[0])
        .issuer_name(named[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        .sign(by, hashes.SHA256())
    )


@pytest.fixture
def authority(tmp_path: Path, key: Path) -> Iterator[Path]:
    """A folder with ``root.pem``, ``middle.pem``, and the certificate ``signing.crt`` of the key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    write_key(key, keys[2])
    made = {
        "root.pem": certificate("root", keys[0], "root", keys[0], True),
        "middle.pem": certificate("middle", keys[1], "root", keys[0], True),
        "signing.crt": certificate("layerflow", keys[2], "middle", keys[1], False),
        "other.pem": certificate("other", keys[1], "other", keys[1], True),
    }
    for name, each in made.items():
        (tmp_path / name).write_bytes(each.public_bytes(Encoding.PEM))
    return tmp_path


def test_a_version_signed_with_a_certificate_is_verified_by_the_root_alone(
    decide: Decide, authority: Path, key: Path
) -> None:
    sign = {"key": key, "certificate": authority / "signing.crt", "chain": authority / "middle.pem"}
    decide("good", registry={"sign": sign})
    folder = layout.home(NAME) / "1"
    verify_signature(folder, Trust(chain=authority / "root.pem"))
    assert f"{SIGNATURE} was changed, or is not of" in refusal(folder, Trust(chain=authority / "other.pem"))
    (folder / "saved_model.pb").write_bytes(b"another")
    assert "saved_model.pb was changed" in refusal(folder, Trust(chain=authority / "root.pem"))


def test_a_certificate_of_another_key_is_one_sentence(authority: Path, key: Path) -> None:
    signing.require_signer(SignConfig(key=key, certificate=authority / "signing.crt"))
    write_key(key, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match=r"must be the PEM file of a certificate of the key in registry\.sign\.key"):
        signing.require_signer(SignConfig(key=key, certificate=authority / "signing.crt"))
    with pytest.raises(ConfigError, match=r"registry\.sign\.certificate must be a PEM file that can be read"):
        signing.require_signer(SignConfig(key=key, certificate=authority / "gone.crt"))


@pytest.mark.process
def test_the_auditor_needs_the_folder_the_public_key_and_the_command_alone(
    signed: Path, trust: Trust, tmp_path: Path
) -> None:
    """The script of the page, as an auditor runs it: in processes that can't import layerflow."""
    (script,) = re.findall(
        r"^```sh\n(#!/bin/sh\n# audit\.sh .*?)^```$", (ROOT / "docs/signing.md").read_text(), re.M | re.S
    )
    work = tmp_path / "auditor"
    work.mkdir()
    (work / "audit.sh").write_text(script)
    folder = shutil.copytree(signed, work / "model")
    assert trust.public_key
    shutil.copy(trust.public_key, work / "key.pub")
    commands = work / "bin"
    commands.mkdir()
    for name in ("model_signing", "python3"):
        source = Path(sys.executable).with_name(name)
        (commands / name).write_text(f'#!/bin/sh\nexec "{source}" "$@"\n')
        (commands / name).chmod(0o755)

    def audit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "audit.sh", "model", "key.pub"],
            cwd=work,
            env={"PATH": f"{commands}:/usr/bin:/bin", "HOME": str(work)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = audit()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{NAME} 1"), done.stderr
    for harm in (of_git, a_link, flipped):
        harm(folder)
        assert audit().returncode != 0, harm.__name__
        shutil.rmtree(folder)
        shutil.copytree(signed, folder)
    assert audit().returncode == 0


def test_a_damaged_export_is_not_signed(
    decide: Decide, key: Path, shelf: Path, contenders: dict[str, Challenger]
) -> None:
    (shelf / contenders["good"].export.saved_model / "fingerprint.pb").write_bytes(b"")
    with pytest.raises(DamagedError):
        decide("good", registry={"sign": {"key": key}})
    assert versions.numbers(NAME) == []
