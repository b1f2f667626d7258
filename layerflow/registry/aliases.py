"""Names for versions: `live` and `previous` follow the versions, and your own stay where you set them.

Your own are kept in the ledger, which is replaced as a whole: a reader sees the old or the new one.
"""

import json
import re

from layerflow.errors import RegistryError, did_you_mean, printed
from layerflow.registry import sharing, versions
from layerflow.registry.layout import home
from layerflow.registry.ledger import known_ledger, read_ledger, write_ledger

#: What the versions themselves decide.
FOLLOWS = ("live", "previous", "candidate")
_ALIAS = r"[a-z][a-z0-9_-]{0,49}"


def aliases_of(name: str) -> dict[str, int]:
    """The aliases of a model with their versions: `live`, `previous` (what a rollback restores), then its own.

    A candidate has no version yet, so it is not among them.
    """
    published = versions.numbers(name)
    followed = {"live": next(iter(published), None), "previous": versions.predecessor(name)}
    own = {alias: version for alias, version in sorted(known_ledger(name).aliases.items()) if version in published}
    return {alias: version for alias, version in {**followed, **own}.items() if version}


def set_alias(name: str, alias: str, version: int) -> None:
    """Let an alias name a published version, whatever it named before.

    Raises:
        RegistryError: If the alias can't be set, or there is no such model or version.
    """
    if not re.fullmatch(_ALIAS, alias) or alias in FOLLOWS:
        raise RegistryError(
            "ALIAS must be lower-case letters, digits, `-` and `_`, at most 50, and start with a letter; "
            f"{', '.join(FOLLOWS)} follow the versions by themselves. Received: {printed(alias)}"
        )
    sharing.refresh(name)
    name = versions.the_name(name)
    with sharing.changing(name):
        versions.require(name, version)
        ledger = read_ledger(name)
        write_ledger(name, ledger.model_copy(update={"aliases": {**ledger.aliases, alias: version}}))


def remove_alias(name: str, alias: str) -> None:
    """Remove an alias; the version that it named stays.

    Raises:
        RegistryError: If there is no such alias or model.
    """
    sharing.refresh(name)
    name = versions.the_name(name)
    with sharing.changing(name):
        ledger = read_ledger(name)
        if alias not in ledger.aliases:
            there = ", ".join(sorted(ledger.aliases)) or "no alias is set"
            raise RegistryError(
                f"ALIAS must be one that was set for {name} ({there}). Received: {printed(alias)}"
                f"{did_you_mean(alias, ledger.aliases)}"
            )
        left = {each: version for each, version in ledger.aliases.items() if each != alias}
        write_ledger(name, ledger.model_copy(update={"aliases": left}))


def serving_config(name: str, base_path: str | None = None) -> str:
    """A model of TF Serving's ``--model_config_file``: the versions that have an alias, with it as their label.

    Args:
        base_path: Where the server finds the versions; default: where they are here.

    Reference: https://www.tensorflow.org/tfx/serving/serving_config
    """
    found = aliases_of(name)
    served = "".join(f" versions: {version}" for version in sorted(set(found.values())))
    labels = "".join(
        f"    version_labels {{ key: {json.dumps(alias)} value: {version} }}\n" for alias, version in found.items()
    )
    return (
        "model_config_list {\n  config {\n"
        f"    name: {json.dumps(name)}\n    base_path: {json.dumps(str(base_path or home(name)))}\n"
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{{served} }} }}\n{labels}  }}\n}}\n"
    )
