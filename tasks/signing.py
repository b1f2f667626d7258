"""What signs a published version."""

from layerflow.registry.signing import require_signer

__all__ = ["require_signer"]
