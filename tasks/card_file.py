"""What a person says in the model card."""

from layerflow import card_file
from layerflow.settings.gate import RegistryConfig


def require_card(registry: RegistryConfig) -> None:
    """Refuse a `card.yaml` that can't be read, before hours of training.

    Raises:
        ConfigError: If a field is unknown, too long or of the wrong type, or the file that was named is missing.
    """
    card_file.read(registry.card)
