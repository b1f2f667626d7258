"""Taking a bad version out of service: an earlier one is published again, under the next number."""

import logging
from datetime import UTC, datetime

from layerflow import store
from layerflow.errors import RegistryError, VerificationError
from layerflow.export import process, verification
from layerflow.outcomes import RolledBack
from layerflow.registry import layout, publishing, sharing, versions
from layerflow.registry.ledger import read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.signing import require_signer
from layerflow.settings.gate import SignConfig

log = logging.getLogger(__name__)


def roll_back(
    name: str,
    to: int | None = None,
    flow_run: str = "",
    verifier: process.Verifier | None = None,
    signer: SignConfig = SignConfig(),  # noqa: B008  (frozen)
) -> RolledBack:
    """Publish the bytes of an earlier version as the next one, after verifying them in a fresh process.

    Servers that take the highest number follow, and no version is ever rewritten. The model that was in service is
    remembered by its digest, so that the next run over unchanged data does not publish it again.

    Args:
        name: The published model.
        to: The version to restore. Default: the newest whose model is another one and was not taken back itself.
        flow_run: Name of the run, for the receipt.
        verifier: What verifies the version; default: one of its own.
        signer: What signs the new version. The old signature is not of its number and its receipt.

    Raises:
        ConfigError: If the signer can't be used; nothing was changed then.
        RegistryError: If there is no such version, or none to go back to; or if the signer does not sign.
        VerificationError: If the version to restore is not as it was published; nothing was changed then.
    """
    target_of(name, to)  # before a lock makes a folder of the name
    require_signer(signer)
    with sharing.changing(name):
        versions.champion_of(name)
        champion, target = target_of(name, to)
        folder = versions.folder_of(name, target)
        if damage := versions.damage(name, target):
            raise VerificationError(
                f"Version {target} of {name} must be as it was published to be restored, and {damage}; restore "
                "another one with --to."
            )
        verification.inspect(folder, verifier)
        receipt = versions.receipt_of(name, target)
        if receipt is None:
            raise RegistryError(f"Version {target} of {name} must carry its receipt to be restored. It has none.")
        digest, unwanted = model_identity(receipt), _model_of(name, champion)
        version = publishing.next_version(name)
        # Before the version appears: whatever kills this process, the unwanted model is not published again.
        ledger = read_ledger(name)
        taken_back = {*ledger.rolled_back, unwanted} - {digest}
        write_ledger(name, ledger.model_copy(update={"rolled_back": tuple(sorted(taken_back))}))
        reason = f"version {target} restored in place of {champion}"
        receipt |= {
            "version": version,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "flow_run": flow_run,
            "decision": {
                "status": "rolled_back",
                "code": "rolled_back",
                "reason": reason,
                "version": version,
                "champion": champion,
                "restored": target,
            },
        }
        # How the model came about is as true as it was: its report and its list of images are kept as they are.
        file = folder / layout.REPORT
        report = file.read_text(encoding="utf-8") if file.exists() else None
        images = (folder / layout.IMAGES).read_bytes() if (folder / layout.IMAGES).exists() else None
        published = publishing.publish(name, version, folder, receipt, report, images, signer)
    if signer.method is None and (layout.home(name) / str(champion) / layout.SIGNATURE).exists():
        log.warning(
            "version %d of %s is not signed, though version %d is; to sign it, roll back with --sign.key",
            *(version, name, champion),
        )
    log.info("rolled_back: version %d of %s is %s", version, name, reason)
    return RolledBack(
        name=name,
        version=version,
        restored=target,
        instead_of=champion,
        digest=digest,
        published=published.relative_to(store.root()).as_posix(),
    )


def target_of(name: str, to: int | None = None) -> tuple[int, int]:
    """The version in service, and the one that ``roll_back`` would restore in its place.

    Raises:
        RegistryError: If there is no such version, or none to go back to.
    """
    if name not in versions.names():
        raise RegistryError(
            f"A version of {name} must be published before it can be rolled back. None is; run layerflow retrain."
        )
    champion = versions.numbers(name)[0]
    highest = max(versions.strays(name), default=0)
    if highest > champion:  # servers serve that folder: the champion would be rolled back for its mistakes
        raise RegistryError(versions.stray_sentence(name, highest))
    _model_of(name, champion)
    if to is None:
        target = versions.predecessor(name)
        if target is None:
            raise RegistryError(
                f"{name} must have an earlier version with another model that was not rolled back itself. It has none; "
                "use --to with a version that layerflow models lists."
            )
        return champion, target
    versions.folder_of(name, to)
    if versions.model_digest(name, to) == versions.model_digest(name, champion):
        raise RegistryError(f"--to must name a version with another model than the live version. Received: {to}")
    return champion, to


def _model_of(name: str, champion: int) -> str:
    """Which model is in service: what must not be published again after the rollback.

    Raises:
        RegistryError: If neither the ledger nor the version's receipt tells.
    """
    if model := versions.model_digest(name, champion):
        return model
    raise RegistryError(
        f"The model of version {champion} of {name} must be known by the ledger or its receipt, or the next run would "
        f"publish it again, and neither can be read; restore {versions.folder_of(name, champion) / layout.RECEIPT} "
        "from a backup, or move that version away to put the one before it into service."
    )
