"""The Python packages of this environment, as a bill of materials in the form of CycloneDX 1.6.

https://cyclonedx.org/docs/1.6/json/
"""

import functools
import importlib.metadata
import json
import platform
import uuid
from collections.abc import Iterable
from importlib.metadata import PackageMetadata
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

#: The longest name of a licence; what is longer is its text.
_LONGEST_NAME = 100
#: How a classifier names a licence.
_CLASSIFIER = "License :: "


def bill_of_materials(created: str) -> bytes:
    """All installed packages with name, version, purl and, where their metadata have it, licence; JSON.

    Args:
        created: When the model was made, in the form of ISO 8601.

    Example:
        >>> json.loads(bill_of_materials("2026-11-24T03:00:00+00:00"))["components"][0]["purl"]
        'pkg:pypi/absl-py@2.3.1'
    """
    components = packages()
    named = json.dumps(components, sort_keys=True)
    (layerflow,) = [each for each in components if each["name"] == "layerflow"] or [{"version": "?"}]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, named)}",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "component": {"type": "application", "name": "layerflow", "version": layerflow["version"]},
        },
        "components": [
            {"type": "platform", "name": platform.python_implementation(), "version": platform.python_version()},
            *components,
        ],
    }
    return json.dumps(content, indent=2).encode()


@functools.cache  # what is installed later is not what this process has imported
def packages() -> list[dict[str, Any]]:
    """A component for each installed package, in order of name; the one that is imported, if there are two."""
    found = dict[str, dict[str, Any]]()
    for distribution in importlib.metadata.distributions():
        try:
            about = distribution.metadata
        except (OSError, ValueError):  # damaged metadata keep no model from service
            continue
        if about is not None and "Name" in about and "Version" in about:  # an uninstallation may have left a folder
            name = canonicalize_name(about["Name"])
            found.setdefault(name, _component(name, about))
    return [found[name] for name in sorted(found)]


def _component(name: str, about: PackageMetadata) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{quote(about['Version'])}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": about["Version"], "purl": purl}
    licences = _licences(about)
    return {**component, "licenses": licences} if licences else component


def _licences(about: PackageMetadata) -> list[dict[str, Any]]:
    if "License-Expression" in about:
        return [{"expression": about["License-Expression"]}]
    named = about["License"].strip() if "License" in about else ""
    if 0 < len(named) <= _LONGEST_NAME and named.isprintable() and named != "UNKNOWN":
        return _named([named])
    classifiers: Iterable[str] = about.get_all("Classifier") or ()
    return _named(each.rpartition(" :: ")[2] for each in classifiers if each.startswith(_CLASSIFIER))


def _named(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"license": {"name": name}} for name in names]
