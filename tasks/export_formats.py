"""What a run with `export.formats` needs, and what becomes of it where a format is left out."""

from layerflow.errors import VerificationError
from layerflow.extras import libraries_of
from layerflow.outcomes import FormatsProof
from layerflow.settings.export import ExportConfig

__all__ = ["libraries_of", "require_all"]


def require_all(config: ExportConfig, proof: FormatsProof) -> None:
    """With ``export.required``, see that every format is proved.

    Raises:
        VerificationError: With the first that is not, and why.
    """
    left_out = [each for each in proof.formats if each.reason is not None]
    if config.required and left_out:
        raise VerificationError(
            f"export.required wants every format of export.formats, and {left_out[0].name} is left out: "
            f"{left_out[0].reason}"
        )
