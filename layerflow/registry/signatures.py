"""Verifying the signature of a version, by a key that the verifier brings along and by nothing else.

Neither the ledger nor the store is asked. The library verifies the signature. Which files it must be of is decided
here, since the library passes over files that a signature names as ignored.
"""

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import checksums
from layerflow.errors import ConfigError, VerificationError, printed
from layerflow.json_file import read_json
from layerflow.registry import receipt as receipts
from layerflow.registry.layout import RECEIPT, SIGNATURE, is_version
from layerflow.registry.signing import require_library

#: What the bundle of a signature holds: a statement of in-toto, with this predicate.
_PREDICATE = "https://model_signing/signature/v1.0"


class Trust(NamedTuple):
    """Whose signature is wanted: that of a key, of a certificate below a root, or of an identity that Sigstore knows.

    ``chain`` is a PEM file of the trusted root, and ``provider`` the address of what vouches for the ``identity``.
    """

    public_key: Path | None = None
    chain: Path | None = None
    identity: str | None = None
    provider: str | None = None


def trust_of(public_key: Path | None, chain: Path | None, identity: str | None, provider: str | None) -> Trust | None:
    """What is trusted by the flags of `layerflow verify`, or nothing without any.

    Raises:
        ConfigError: If they name more than one thing, or half of one.
    """
    named = [public_key is not None, chain is not None, identity is not None or provider is not None]
    if not any(named):
        return None
    if sum(named) > 1 or (identity is None) != (provider is None):
        raise ConfigError(
            "A signature must be verified by one of --public-key, --certificate-chain, and --identity together with "
            "--identity-provider; give one of the three."
        )
    return Trust(public_key, chain, identity, provider)


def verify_signature(folder: Path, trust: Trust) -> str:
    """See that every file of a version is as it was signed, that none is missing or added, and who signed them.

    Returns:
        What was verified, for people.

    Raises:
        ConfigError: If the library is not installed, or the public key or the certificates can't be read.
        VerificationError: With the first file that is not as it was signed.

    Example:
        >>> verify_signature(Path("store/models/mlp-digits/3"), Trust(public_key=Path("signing.pub")))
        'the signature is of all 17 files; it is version 3 of mlp-digits'
    """
    require_library("The signature of a version")
    folder = folder.resolve()
    try:
        files = {name: checksums.sha256(folder / name) for name in _files(folder)}
        if SIGNATURE not in files:
            raise VerificationError(
                f"{folder} must be signed. It has no {SIGNATURE}; publish a version with registry.sign, or verify it "
                "without a key."
            )
        del files[SIGNATURE]
        signed = _signed_files(folder, trust)
    except OSError as error:
        raise VerificationError(
            f"The files of {folder} must be readable to be verified. One can't be read: {error.strerror}; let this "
            "user read them."
        ) from error
    if name := checksums.first_difference(signed, files):
        how = "was changed" if name in signed and name in files else "was added" if name in files else "is missing"
        raise _refused(folder, f"{printed(name)} {how} after it was signed")
    if found := receipts.damage(folder):
        raise _refused(folder, found)
    receipt = receipts.read(folder / RECEIPT)
    version = f"version {receipt['version']} of {receipt.get('name', '?')}"
    if is_version(folder.name) and int(folder.name) != receipt["version"]:
        raise _refused(folder, f"{RECEIPT} is of {version}, which was put in place of version {folder.name}")
    return f"the signature is of all {len(files)} files; it is {version}"


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder, hidden ones too.

    Raises:
        VerificationError: If there is a link, or a special file: what it leads to can change.
    """
    for place, folders, files in os.walk(folder, onerror=_raise):
        for each in sorted((*folders, *files)):
            name = (Path(place) / each).relative_to(folder).as_posix()
            mode = os.lstat(folder / name).st_mode
            if stat.S_ISREG(mode):
                yield name
            elif not stat.S_ISDIR(mode):
                raise _refused(folder, f"{printed(name)} is neither a file nor a folder")


def _raise(error: OSError) -> None:
    """A folder that can't be read must not be passed over."""
    raise error


def _signed_files(folder: Path, trust: Trust) -> dict[str, str]:
    """The digests by file that the signature is of, once it is known whose it is.

    Raises:
        VerificationError: If it is not of who is trusted.
    """
    verifier = _verifier(trust)
    from model_signing import hashing

    class Hashing(hashing.Config):
        """Tells a wrong signature from a wrong file: the files are only hashed once the signature was right."""

        was_asked = False

        def hash(self, *arguments: Any, **named: Any) -> Any:
            self.was_asked = True
            return super().hash(*arguments, **named)

    hashed = Hashing().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    try:
        content = _canonical(folder / SIGNATURE)
        verifier.set_hashing_config(hashed).verify(folder, folder / SIGNATURE)
    except Exception as error:  # whatever the library raises of bytes that anyone may have written
        if not hashed.was_asked:
            by = trust.public_key or trust.chain or f"{trust.identity}, by {trust.provider}"
            raise _refused(folder, f"{SIGNATURE} was changed, or is not of {by}") from error
        if not isinstance(error, ValueError):
            raise
    return _listed(folder, content)


def _canonical(file: Path) -> dict[str, Any]:
    """The bundle in a file, which must have no byte that could be another: nothing may be hidden in it.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no bundle, or could be written otherwise.
    """
    from sigstore_models.bundle.v1 import Bundle

    content = read_json(file)
    written = {json.dumps(content, separators=separators) for separators in ((",", ":"), (", ", ": "))}
    if file.read_text(encoding="utf-8") not in written:
        raise ValueError("it is JSON of another form")
    if _filled(json.loads(Bundle.from_dict(content).to_json())) != _filled(content):
        raise ValueError("it has something that is not read")
    assert isinstance(content, dict)
    return content


def _filled(content: Any) -> Any:
    """The content without what is empty, which is written or left out."""
    if isinstance(content, dict):
        return {name: filled for name, value in content.items() if (filled := _filled(value)) not in (None, "", [], {})}
    return [_filled(each) for each in content] if isinstance(content, list) else content


def _listed(folder: Path, bundle: dict[str, Any]) -> dict[str, str]:
    """The digests by file in a bundle whose signature was verified."""
    try:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        predicate, files = statement["predicate"], dict[str, str]()
        if statement["predicateType"] != _PREDICATE or predicate["serialization"]["method"] != "files":
            raise ValueError("it is of another form")
        for each in predicate["resources"]:
            if each["algorithm"] != "sha256" or not isinstance(each["name"], str) or each["name"] in files:
                raise ValueError("it does not have one SHA-256 for each file")
            files[each["name"]] = each["digest"]
        return files
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(
            folder, f"{SIGNATURE} is not a list of files with their SHA-256, of model signing v1.0"
        ) from error


def _verifier(trust: Trust) -> Any:
    """The library's configuration that verifies by what is trusted."""
    from model_signing import verifying

    config = verifying.Config()
    file = trust.public_key or trust.chain
    try:
        if trust.public_key:
            return config.use_elliptic_key_verifier(public_key=trust.public_key)
        if trust.chain:
            return config.use_certificate_verifier(certificate_chain=[trust.chain])
    except Exception as error:
        flag = "--public-key" if trust.public_key else "--certificate-chain"
        what = "a public key on P-256, P-384 or P-521" if trust.public_key else "the certificates that are trusted"
        raise ConfigError(f"{flag} must be the PEM file of {what}. {file} is not; name the right file.") from error
    try:
        return config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.provider)
    except Exception as error:  # it reads Sigstore's keys from the network
        raise VerificationError(
            "--identity must reach Sigstore for its keys. It could not be reached "
            f"({type(error).__name__}); re-run the command."
        ) from error


def _refused(folder: Path, why: str) -> VerificationError:
    return VerificationError(
        f"{folder} must be, byte for byte, what was signed, and {why}; don't use it, and get it again from whoever "
        "signed it."
    )
