"""Signing a version by OpenSSF model signing v1.0: one Sigstore bundle over all of its files.

The library is imported where something is signed, and nowhere else: it is an extra.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from layerflow.errors import ConfigError, RegistryError
from layerflow.settings.gate import PASSWORD, SignConfig

#: The curves for which the format names a hash.
CURVES = ("secp256r1", "secp384r1", "secp521r1")


def require_signer(settings: SignConfig) -> None:
    """See that what ``registry.sign`` names can sign, before hours of training.

    Raises:
        ConfigError: If the library is not installed, or a key or a certificate can't be used.
    """
    if settings.method:
        _signer(settings)


def sign(folder: Path, signature: str, settings: SignConfig) -> None:
    """Write the signature of all files of a folder into it, unless the settings name nothing that signs.

    Args:
        folder: Its name is in the signature.
        signature: The name of the file to write.

    Raises:
        ConfigError: As ``require_signer`` says.
        RegistryError: If Sigstore can't be reached, or does not sign.

    Example:
        >>> sign(Path("mlp-digits-3"), "model.sig", SignConfig(key="signing.pem"))
    """
    if settings.method is None:
        return
    signer = _signer(settings)
    from model_signing import hashing

    # By default, the library passes over .git and its like: whoever adds such a file later would go unnoticed.
    hashed = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    try:
        signer.set_hashing_config(hashed).sign(folder, folder / signature)
    except Exception as error:  # of Sigstore, the network, or a key that was taken away just now
        raise RegistryError(
            f"{folder.name} must be signed by registry.sign before it is published. It could not be "
            f"({type(error).__name__}), so nothing was published; fix the cause and re-run the command."
        ) from error


def require_library(what: str) -> None:
    """See that what signs and verifies is installed.

    Raises:
        ConfigError: With the command that installs it.
    """
    if importlib.util.find_spec("model_signing") is None:
        raise ConfigError(
            f"{what} needs model_signing, which is not installed; pip install 'layerflow[sign]', or in a clone: "
            "make sign."
        )


def _signer(settings: SignConfig) -> Any:
    """The library's configuration that signs as the settings say."""
    require_library("registry.sign")
    from model_signing import signing

    config = signing.Config()
    if settings.method == "keyless":
        _require_identity()
        try:
            return config.use_sigstore_signer(use_ambient_credentials=True)
        except Exception as error:  # it reads Sigstore's addresses from the network
            raise RegistryError(
                f"registry.sign.keyless must reach Sigstore. It could not be reached ({type(error).__name__}); re-run "
                "the command, or set registry.sign.key."
            ) from error
    assert settings.key
    password = os.environ.get(PASSWORD, "").encode() or None
    _require_key(settings.key, password)
    if settings.certificate is None:
        return config.use_elliptic_key_signer(private_key=settings.key, password=password)
    if password:
        raise ConfigError(
            f"registry.sign.key must have no password where registry.sign.certificate is set: the library can't take "
            f"one. {PASSWORD} is set; keep the key without a password in a file that only its owner can read."
        )
    files = {"certificate": settings.certificate, "chain": settings.chain}
    for name, file in files.items():
        if file is not None:
            _require_readable(f"registry.sign.{name}", file)
    try:
        return config.use_certificate_signer(
            private_key=settings.key,
            signing_certificate=settings.certificate,
            certificate_chain=[settings.chain or settings.certificate],  # the library can't take none
        )
    except Exception as error:
        raise ConfigError(
            f"registry.sign.certificate must be the PEM file of a certificate of the key in registry.sign.key, and "
            f"registry.sign.chain one of further certificates. {settings.certificate} is not; name the right files."
        ) from error


def _require_readable(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{setting} must be a PEM file that can be read. {file} can't be ({error.strerror}); name another, or let "
            "this user read it."
        ) from error


def _require_key(file: Path, password: bytes | None) -> None:
    """See that a file has a private key that can sign; nothing that is in it is repeated."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _require_readable("registry.sign.key", file)
    try:
        key = load_pem_private_key(content, password)
    except TypeError:
        wrong = f"It has none; unset {PASSWORD}" if password else f"It has one; set {PASSWORD} in the environment"
        raise ConfigError(f"registry.sign.key must be given with its password, if it has one. {wrong}.") from None
    except Exception:
        raise ConfigError(
            f"registry.sign.key must be the PEM file of a private key, and {PASSWORD} its password, if it has one. "
            f"{file} can't be read so; name another file, or set the right password."
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        kind = key.curve.name if isinstance(key, EllipticCurvePrivateKey) else type(key).__name__
        raise ConfigError(
            f"registry.sign.key must be an elliptic curve key: P-256, P-384 or P-521. {file} is another ({kind}); make "
            "one with `openssl ecparam -name prime256v1 -genkey -noout -out signing.pem`."
        )


def _require_identity() -> None:
    """See that the environment has an identity; otherwise, the library would open a browser and wait for a person."""
    from sigstore.oidc import detect_credential

    try:
        found = detect_credential("sigstore")
    except Exception as error:
        found, why = None, type(error).__name__
    else:
        why = "none was found"
    if not found:
        raise ConfigError(
            "registry.sign.keyless must find the identity of this workload, as GitHub Actions, GitLab and Google "
            f"Cloud provide it ({why}); run there, or set registry.sign.key."
        )
