"""Where published models lie: ``<store>/models/<name>/<N>/``, which TF Serving serves the highest number of."""

from pathlib import Path

from layerflow import store
from layerflow.checksums import EXTRA

#: TF Serving reads version numbers as signed 64-bit integers, and passes over what does not fit.
HIGHEST = 2**63 - 1


def home(name: str) -> Path:
    """The folder of all versions of a model."""
    return store.root() / "models" / name


def folders() -> list[str]:
    """The folders of models, in order of name, whether or not a version is in them."""
    models = store.root() / "models"
    found = [folder.name for folder in models.iterdir() if folder.is_dir()] if models.is_dir() else []
    return sorted(name for name in found if not name.startswith(".") and name.isprintable())


def is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and text == str(int(text)) and 0 < int(text) <= HIGHEST


RECEIPT = f"{EXTRA}/receipt.json"
#: All cards of the run that made the model, for people.
REPORT = f"{EXTRA}/report.html"
#: Which images the model has learned from, and which it was tested on.
IMAGES = f"{EXTRA}/images.npz"
#: The model card. At the top, where the Hugging Face Hub looks for it; TF Serving passes over it.
CARD = "README.md"
#: The model in other formats, of which the receipt has the digests.
FORMATS = f"{EXTRA}/formats"
#: How the version came about, in the form of in-toto and SLSA, and the Python packages of the environment that made it.
PROVENANCE, SBOM = f"{EXTRA}/provenance.intoto.json", f"{EXTRA}/sbom.cdx.json"
#: What a version has beside the files of the export.
BESIDE = (RECEIPT, REPORT, IMAGES, CARD, PROVENANCE, SBOM)
#: The signature of all other files of a version, where it is signed. The list of digests can't have it.
SIGNATURE = "model.sig"
#: What a candidate has besides: the settings and the records of the run that asks about it.
RUN = f"{EXTRA}/run.json"
