"""Movies with known activity: cells that overlap, neuropil, vessels, motion and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from gpucalcium.cinac import simulated_traces as activity
from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.movies import CinacDataMovie
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.cinac.simulated_cells import KINDS, TARGET, TILE, SimulatedMap, draw_map, draw_weights
from gpucalcium.cinac.simulated_scene import draw_movie, draw_shifts
from gpucalcium.errors import MovieFileError, ParameterError

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SimulationParams:
    """What a simulated movie shows; ranges are lowest and highest, both included."""

    n_frames: int = 2500
    """Frames, 2 or more."""
    dimensions: tuple[int, int] = (120, 120)
    """Rows and columns, px."""
    with_mvt: bool = False
    """Whether the field of view jumps by up to 2 px now and then."""
    n_cells_of_interest: int = 16
    """Cells of interest, each in a square of 30 px of its own."""
    n_overlap_by_cell_range: Range = (1, 4)
    """Cells that overlap each of them."""
    non_overlap_by_cell_range: Range = (2, 10)
    """Cells beside each of them."""
    range_n_transient_cells_of_interest: Range = (2, 4)
    """Transients of cells of interest in 1000 frames."""
    range_n_transient_overlapping_cells: Range = (8, 16)
    """Likewise of cells that overlap them."""
    range_n_transient_other_cells: Range = (2, 16)
    """Likewise of cells beside them."""
    range_duration_transient: Range = (1, 8)
    """Frames from onset to peak."""
    decay_factor: float = 10
    """Frames of decay for each frame of rise."""
    max_decay: float = 12
    """Frames of decay, at least."""
    cell_types: Mapping[str, float] = field(default_factory=lambda: {"pyramidal": 1.0})
    """Share of each type; see `simulated_cells.KINDS`."""
    neuropil: float = 0.15
    """Standard deviation of each of two modes of neuropil, in baselines of a cell; 0: none."""
    n_vessels: int = 0
    """Vessels: dark bands across the field of view, at half the brightness."""
    noise_variance: float = 0.1
    """Of the Gaussian noise of a pixel, where the noise-free movie goes from 0 to 1."""

    def __post_init__(self) -> None:
        if self.n_frames < 2:
            raise ParameterError(f"n_frames={self.n_frames}: a simulated movie has 2 frames or more")
        tiles = (self.dimensions[0] // TILE) * (self.dimensions[1] // TILE)
        if not 1 <= self.n_cells_of_interest <= tiles:
            raise ParameterError(
                f"n_cells_of_interest={self.n_cells_of_interest}: {self.dimensions} px have room for 1 to {tiles}, one "
                f"in each square of {TILE} px"
            )
        for name, value in vars(self).items():
            if "range" in name:
                least = 1 if name == "range_duration_transient" else 0
                if len(value) != 2 or not least <= value[0] <= value[1]:
                    raise ParameterError(f"{name}={value}: (lowest, highest), from {least} on, is expected")
        for name in ("decay_factor", "max_decay", "neuropil", "n_vessels", "noise_variance"):
            if not getattr(self, name) >= 0:
                raise ParameterError(f"{name}={getattr(self, name)}: it must not be negative")
        if self.max_decay == 0:
            raise ParameterError("max_decay=0: transients decay within one frame at least")
        unknown = set(self.cell_types) - set(KINDS)
        if unknown or not self.cell_types or not sum(self.cell_types.values()) > 0:
            raise ParameterError(
                f"cell_types={dict(self.cell_types)}: shares of {', '.join(KINDS)} are expected"
            )


@dataclass(frozen=True, eq=False)
class SimulatedRecording:
    """A movie and the truth about its N cells; cells of interest come first."""

    movie: NDArray[np.uint8]
    """(T, H, W), from 0 to 255 over the whole movie."""
    contours: tuple[NDArray[np.float64], ...]
    """(2, n) x and y of each outline."""
    raster: NDArray[np.bool_]
    """(N, T) frames from onset to peak of each transient."""
    traces: NDArray[np.float32]
    """(N, T) noise-free fluorescence; the baseline of a cell is its number of pixels."""
    cell_types: tuple[str, ...]
    """Names in `simulated_cells.KINDS`."""
    roles: NDArray[np.int64]
    """(N,) `TARGET`, `OVERLAPPING` or `OTHER` of `simulated_cells`."""
    shifts: NDArray[np.int64]
    """(T, 2) rows and columns by which each frame is displaced."""

    def recording(self, identifier: str) -> CinacRecording:
        """Movie and cells, as training and prediction take them."""
        made = CinacRecording(identifier)
        made.set_movie(CinacDataMovie(self.movie))
        made.set_rois_2d_array(self.contours, from_matlab=False)
        return made


def simulate_recording(
    seed: int | np.random.Generator,
    params: SimulationParams | None = None,
    outlines: Sequence[NDArray[np.float64]] | None = None,
) -> SimulatedRecording:
    """A movie with known activity.

    Parameters
    ----------
    seed : int or Generator
        The same seed and parameters give the same bytes.
    params : SimulationParams, optional
    outlines : sequence of (2, n), optional
        Outlines of cells to choose from; default: random smooth ones.

    Returns
    -------
    SimulatedRecording

    Notes
    -----
    A pixel of a cell is its weight times the cell's brightness over its baseline; where cells overlap, the brighter
    one shows. Neuropil is added to it, vessels take half of it away.

    References
    ----------
    Denis et al. (2020), eNeuro 7(4), ENEURO.0038-20.2020, whose simulated movies these follow.
    """
    params = SimulationParams() if params is None else params
    rng = np.random.default_rng(seed)
    drawn = draw_map(
        rng,
        params.dimensions,
        params.n_cells_of_interest,
        params.n_overlap_by_cell_range,
        params.non_overlap_by_cell_range,
        params.cell_types,
        outlines,
    )
    raster, above = _draw_activity(rng, drawn, params)
    weights = draw_weights(rng, drawn, params.dimensions)
    shifts = (
        draw_shifts(rng, params.n_frames) if params.with_mvt else np.zeros((params.n_frames, 2), np.int64)
    )
    movie = draw_movie(
        rng,
        params.dimensions,
        weights,
        above,
        shifts,
        neuropil=params.neuropil,
        n_vessels=params.n_vessels,
        noise_variance=params.noise_variance,
    )
    sizes = np.array([len(w.pixels) for w in weights], np.float32)
    return SimulatedRecording(
        movie, drawn.cells.contours, raster, sizes[:, None] * (1 + above), drawn.types, drawn.roles, shifts
    )


def _draw_activity(
    rng: np.random.Generator, drawn: SimulatedMap, params: SimulationParams
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """(N, T) raster, and brightness above the baseline, in baselines."""
    rates = (
        params.range_n_transient_cells_of_interest,
        params.range_n_transient_overlapping_cells,
        params.range_n_transient_other_cells,
    )
    shape = len(drawn.cells), params.n_frames
    raster, above = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for cell, (name, role) in enumerate(zip(drawn.types, drawn.roles, strict=True)):
        kind = KINDS[name]
        if kind.rate == 0:
            above[cell] = activity.draw_drift(rng, params.n_frames)
            continue
        low, high = (kind.rate * n for n in rates[role])
        runs = activity.draw_raster(rng, params.n_frames, (low, high), params.range_duration_transient)
        raster[cell] = activity.raster_of(params.n_frames, *runs)
        decay = kind.decay * params.decay_factor, kind.decay * params.max_decay
        above[cell] = activity.draw_trace(rng, params.n_frames, *runs, *decay)
    return raster, above


class SimulatedMovieGenerator:
    """Writes simulated movies, and what is true of them.

    Parameters
    ----------
    n_frames : int
    path_results : path
        Folder for the files; made if it is not there.
    dimensions, with_mvt, n_cells_of_interest, n_overlap_by_cell_range, non_overlap_by_cell_range, \
    range_n_transient_cells_of_interest, range_n_transient_overlapping_cells, range_n_transient_other_cells, \
    range_duration_transient, decay_factor, max_decay
        As in `SimulationParams`.
    time_str : str, optional
        Goes into the names of files; default: the date and time.
    use_only_valid_cells : bool
        Of outlines that are loaded, leave out those that cross themselves or have fewer than 3 points.
    seed : int
        The first movie's; each further one has the next.
    **scene
        The other parameters of `SimulationParams`.

    Raises
    ------
    ParameterError
        A parameter that cannot work.
    TypeError
        One that there is not.
    """

    def __init__(
        self,
        n_frames: int,
        path_results: str | Path,
        dimensions: tuple[int, int] = (120, 120),
        with_mvt: bool = False,
        n_cells_of_interest: int = 16,
        n_overlap_by_cell_range: Range = (1, 4),
        non_overlap_by_cell_range: Range = (2, 10),
        range_n_transient_cells_of_interest: Range = (2, 4),
        range_n_transient_overlapping_cells: Range = (8, 16),
        range_n_transient_other_cells: Range = (2, 16),
        range_duration_transient: Range = (1, 8),
        decay_factor: float = 10,
        max_decay: float = 12,
        time_str: str | None = None,
        use_only_valid_cells: bool = True,
        *,
        seed: int = 0,
        **scene: Any,
    ) -> None:
        self.params = SimulationParams(
            n_frames=n_frames,
            dimensions=dimensions,
            with_mvt=with_mvt,
            n_cells_of_interest=n_cells_of_interest,
            n_overlap_by_cell_range=n_overlap_by_cell_range,
            non_overlap_by_cell_range=non_overlap_by_cell_range,
            range_n_transient_cells_of_interest=range_n_transient_cells_of_interest,
            range_n_transient_overlapping_cells=range_n_transient_overlapping_cells,
            range_n_transient_other_cells=range_n_transient_other_cells,
            range_duration_transient=range_duration_transient,
            decay_factor=decay_factor,
            max_decay=max_decay,
            **scene,
        )
        self.path_results = Path(path_results)
        self.time_str = datetime.now().strftime("%Y_%m_%d.%H-%M-%S") if time_str is None else time_str
        self.use_only_valid_cells = use_only_valid_cells
        self._seed, self._outlines = seed, None

    _outlines: tuple[NDArray[np.float64], ...] | None

    def load_cell_coords(self, data_file: str | Path, from_matlab: bool) -> None:
        """Take outlines of cells from a file; they are drawn from again and again, so that they never run out.

        Parameters
        ----------
        data_file : path
            ``.mat`` or ``.npz`` with `coord`: for each cell (2, n), x and y.
        from_matlab : bool
            Coordinates are counted from 1.

        Raises
        ------
        MovieFileError
            Not such a file.
        ParameterError
            No outline is left.
        """
        found = [outline - from_matlab for outline in _read_outlines(Path(data_file))]
        if self.use_only_valid_cells:
            found = [outline for outline in found if _is_valid(outline)]
        found = [outline for outline in found if outline.shape[1] >= 3]
        if not found:
            raise ParameterError(f"{data_file} has no outline of 3 points or more that could be a cell")
        self._outlines = tuple(found)

    def generate_movie(self) -> SimulatedRecording:
        """Simulate a movie and write its files.

        Returns
        -------
        SimulatedRecording
            What was written: ``simulated_movie_{id}.tiff``; ``map_coords_{id}.mat`` (`coord`);
            ``gui_data_{id}.mat`` (`raster_dur`, `onsets`, `peaks`); ``traces_{id}.npy``;
            ``cells_{id}.txt``, the cells of interest and those that overlap them.
        """
        import tifffile

        made = simulate_recording(self._seed, self.params, self._outlines)
        name = f"{self.time_str}_{self._seed}"
        self._seed += 1
        folder = self.path_results
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / f"simulated_movie_{name}.tiff", made.movie)
        coords = np.empty(len(made.contours), object)
        coords[:] = made.contours
        scipy.io.savemat(folder / f"map_coords_{name}.mat", {"coord": coords})
        steps = np.diff(made.raster.astype(np.int8), axis=1, prepend=0, append=0)
        truth = {
            "raster_dur": made.raster.astype(np.int8),
            "onsets": (steps[:, :-1] == 1).astype(np.int8),
            "peaks": (steps[:, 1:] == -1).astype(np.int8),
        }
        scipy.io.savemat(folder / f"gui_data_{name}.mat", truth)
        np.save(folder / f"traces_{name}.npy", made.traces)
        (folder / f"cells_{name}.txt").write_text(_listing(made))
        return made


def _listing(made: SimulatedRecording) -> str:
    """One line for each cell of interest: its index, its type, and the cells that meet it."""
    neighbours = made.recording("listing").cells.neighbours
    overlapping = {cell: neighbours[cell].tolist() for cell in np.flatnonzero(made.roles == TARGET).tolist()}
    return "".join(
        f"cell {cell} ({made.cell_types[cell]}): overlaps {', '.join(map(str, others)) or 'none'}\n"
        for cell, others in overlapping.items()
    )


def _read_outlines(path: Path) -> list[NDArray[np.float64]]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                stored = list(file["coord"])
        else:
            stored = list(scipy.io.loadmat(path)["coord"].ravel())
        outlines = [np.asarray(points, np.float64) for points in stored]
    except (KeyError, ValueError, OSError, NotImplementedError) as err:
        raise MovieFileError(f"{path} must be a .mat or .npz file with outlines `coord`: {err}") from err
    if any(points.ndim != 2 or len(points) != 2 for points in outlines):
        raise MovieFileError(f"{path}: each outline of `coord` is (2, n), x and y")
    return [points[:, ~np.isnan(points).any(axis=0)] for points in outlines]


def _is_valid(outline: NDArray[np.float64]) -> bool:
    shapely = optional("shapely", "the geometry of cells")
    return outline.shape[1] >= 3 and bool(shapely.Polygon(outline.T).is_valid)
