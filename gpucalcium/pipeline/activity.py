"""Activity of the cells of a run by a network that looks at the movie, beside the spikes of deconvolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.errors import ParameterError
from gpucalcium.pipeline.settings import RunSettings
from gpucalcium.pipeline.stages import Stages

if TYPE_CHECKING:
    from gpucalcium.nets import Network

GROUP = "cinac"
ACTIVE_FROM = 0.5
PASSES = 2  # over the movie: mean and deviation, prediction


@dataclass(frozen=True, eq=False)
class Activity:
    """When cells are active, as a network sees it."""

    predictions: NDArray[np.float32]
    """(N, T) probability, frame by frame."""
    cells: NDArray[np.intp]
    """(N,) columns of the footprints."""
    classifier: str
    """Name of the network's file."""

    @property
    def raster(self) -> NDArray[np.bool_]:
        """(N, T) whether a cell is active."""
        return self.predictions >= ACTIVE_FROM


def load_classifier(asked: RunSettings) -> tuple[Network, str] | None:
    """The network that is asked for, and the name of its file; None if none is.

    Raises
    ------
    MissingWeightsError, NetworkFileError, MissingExtraError
        It cannot be read.
    ParameterError
        It does not predict activity.
    """
    if not asked.cinac:
        return None
    from gpucalcium import nets
    from gpucalcium.cinac.shipped import weights

    file = Path(asked.cinac_model or weights("activity")[0])
    network = nets.load_network(file, asked.cinac_weights)
    if network.kind != "activity":
        raise ParameterError(
            f"{file} is a network of kind {network.kind!r}; one that predicts activity is needed"
        )
    return network, file.name


def cell_activity(
    found: Estimates, frames: FrameSource, classifier: tuple[Network, str] | None, stages: Stages
) -> Activity | None:
    """Activity of the accepted cells in the registered movie; None without classifier or cells."""
    cells = np.asarray(found.idx_components, np.intp)
    if classifier is None or len(cells) == 0:
        return None
    from gpucalcium.cinac import CinacDataMovie, CinacRecording, predict_activity
    from gpucalcium.cinac.prediction import activity_of

    network, name = classifier
    with stages.stage("activity", PASSES * len(frames)):
        recording = CinacRecording(name)
        recording.set_movie(CinacDataMovie(stages.watched(frames)))
        recording.set_rois_from_footprints(found.A[:, cells])
        predictions = activity_of(predict_activity(recording, np.arange(len(cells)), network))
    return Activity(predictions, cells, name)


def write_activity(path: Path, activity: Activity) -> None:
    """Add the group ``cinac`` to a file of results: `predictions` (N, T), `cells` (N,), attribute `classifier`."""
    with h5py.File(path, "a") as file:
        group = file.create_group(GROUP)
        group.create_dataset("predictions", data=activity.predictions)
        group.create_dataset("cells", data=activity.cells.astype(np.int64))
        group.attrs["classifier"] = activity.classifier


def read_activity(path: str | Path) -> Activity | None:
    """What `write_activity` wrote; None if the file holds none."""
    with h5py.File(path, "r") as file:
        if GROUP not in file:
            return None
        group = file[GROUP]
        cells = group["cells"][...].astype(np.intp)
        return Activity(group["predictions"][...], cells, str(group.attrs["classifier"]))
