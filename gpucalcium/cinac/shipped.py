"""The classifiers that come with the library: small ones, trained on simulated movies."""

from __future__ import annotations

from pathlib import Path

from gpucalcium.errors import MissingWeightsError, ParameterError

FOLDER = Path(__file__).parent / "weights"
KINDS = ("activity", "cell_type")


def shipped_classifier(kind: str = "activity") -> Path:
    """The model file of a classifier that comes with the library, for `nets.load_network`.

    Parameters
    ----------
    kind : "activity" or "cell_type"

    Raises
    ------
    MissingWeightsError
        This installation has none.
    """
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r}: there are classifiers of {' and '.join(KINDS)}")
    file = FOLDER / f"{kind}.json"
    if not file.is_file():
        raise MissingWeightsError(
            f"this installation has no classifier of kind {kind!r} ({file} is not there): install the library again, "
            "or give a model file of your own"
        )
    return file
