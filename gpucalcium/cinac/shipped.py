"""The small classifiers that come with the library, trained on simulated movies (`gpucalcium.cinac.train`)."""

from __future__ import annotations

from pathlib import Path

from gpucalcium.errors import MissingWeightsError, UnknownParameterError

FOLDER = Path(__file__).parent / "weights"
CLASSIFIERS = ("activity", "cell_types")


def weights(name: str) -> tuple[str, str, str]:
    """Files of a classifier that comes with the library, as `CinacPredictor.add_recording` takes them.

    Parameters
    ----------
    name : "activity" or "cell_types"
        The probability that a cell is active, in each frame; or of each type (interneuron, pyramidal, noise).

    Returns
    -------
    model_file, weights_file, identifier : str
        ``model_files_dict={weights("activity"): None}`` predicts all cells with it.

    Raises
    ------
    UnknownParameterError
        There is no such classifier.
    MissingWeightsError
        Its files are not there.
    """
    if name not in CLASSIFIERS:
        raise UnknownParameterError(f"there is no classifier {name!r}; there are {', '.join(CLASSIFIERS)}")
    files = [FOLDER / f"{name}{suffix}" for suffix in (".json", ".safetensors")]
    for path in files:
        if not path.is_file():
            raise MissingWeightsError(
                f"{path} is not there: install gpucalcium again, or train it: "
                f"python -m gpucalcium.cinac.train {name} FOLDER"
            )
    return str(files[0]), str(files[1]), f"gpucalcium_{name}"
