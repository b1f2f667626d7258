"""Which code a network is made of, beside the code of whoever makes and trains it."""

from layerflow import user_code
from layerflow.code_digest import code_digest
from layerflow.extras import require_hub
from layerflow.settings.applications import is_application
from layerflow.settings.hub import is_hub


def network_code(name: str) -> str:
    """SHA-256 of the code of the network ``name``: of its module and its layers, or of your own package.

    What makes and loads networks imports one by its name, so that none is in the key of another's steps.

    Raises:
        ConfigError: If it is a user's, and there is no such package, or KerasHub's, which isn't installed.
    """
    if user_code.is_own(name):
        return user_code.package_digest(name)
    require_hub(name)
    return code_digest(f"layerflow.models.{module_of(name)}")


def module_of(name: str) -> str:
    """The module of ``layerflow.models`` that has the class of one of layerflow's own networks."""
    if is_application(name):
        return "application"
    return "hub" if is_hub(name) else name
