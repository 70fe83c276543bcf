"""Search for one-photon cells: where neighbouring pixels correlate and peaks stand above the noise.

A filter of the size of a cell takes the blurred background away. A seed is a pixel whose filtered trace has a high
peak and correlates with those around; its cell is the trace that the pixels in its box share, regressed out of the
raw movie beside the local background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.backend.stencils import difference_kernel, gaussian_weights
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.greedy import FRAMES_FILTERED_AT_ONCE, given_seeds, per_axis, places_of
from gpucalcium.cnmf.initialization.seed_shape import one_cell
from gpucalcium.cnmf.temporal import Deconvolved, deconvolve_traces
from gpucalcium.deconvolution import get_noise_fft
from gpucalcium.errors import MovieShapeError, NotSupportedError, ParameterError

CORE = 0.9  # correlation with the seed of the pixels whose mean is the first trace of a cell
OUTSIDE = 0.3  # correlation below which a pixel of the box shows the background
LEAST_JUMP = 3.0  # of a seed: its largest rise from frame to frame, in standard deviations of those
LEAST_NOISE = 1e-3  # of the noise of the median pixel: keeps pixels without any from being all peak


@dataclass(frozen=True, kw_only=True)
class SeedSearch:
    """What `init_neurons_corr_pnr` looks for; its parameters say what each is."""

    gSig: tuple[float, ...]
    gSiz: tuple[float, ...]
    max_number: int | None = None
    center_psf: bool = True
    min_corr: float = 0.8
    min_pnr: float = 10
    min_pixel: int = 3
    bd: int = 1
    thresh_init: float = 2
    seed_method: Any = "auto"
    median: int = 3
    """Side of the square over which the image that seeds are sought in is smoothed by a median, pixels."""
    deconvolution: Mapping[str, Any] = field(default_factory=lambda: {"p": 1, "noise_method": "mean"})

    def __post_init__(self) -> None:
        if not min(self.gSig) > 0 or min(self.gSiz) < 1:
            raise ParameterError(f"gSig={self.gSig}, gSiz={self.gSiz}: the size of a cell must be above 0")
        if self.max_number is not None and self.max_number < 0:
            raise ParameterError(f"max_number={self.max_number}: the number of cells cannot be negative")

    def made_smaller(self, ssub: int) -> SeedSearch:
        """The same for a movie whose pixels are averaged over blocks of side `ssub`."""
        sigma, size = (tuple(x / ssub for x in axes) for axes in (self.gSig, self.gSiz))
        how, places = places_of(self.seed_method)
        seeds = how if places is None else (how, places // ssub)
        median = max(self.median // ssub, 1)  # a square of three blocks would be wider than a cell's core
        gSiz = tuple(max(round(x), 1) for x in size)
        return replace(self, gSig=sigma, gSiz=gSiz, seed_method=seeds, median=median)

    def kernel(self) -> NDArray[np.float64]:
        """The filter of the size of a cell."""
        radius = [int(2 * sigma) for sigma in self.gSig]
        if self.center_psf:
            return difference_kernel(self.gSig, radius)
        return np.outer(*[gaussian_weights(s, r) for s, r in zip(self.gSig, radius, strict=True)])


class Seeded(NamedTuple):
    """Cells of a search."""

    A: csc_matrix
    """(d, K) footprints, pixels in Fortran order."""
    raw: NDArray[np.float32]
    """(K, T) traces as the footprints see them, without baseline."""
    found: Deconvolved
    """Their deconvolution."""
    noise: Array
    """Noise level of each pixel of the filtered movie, (d1, d2) on the device."""


def init_neurons_corr_pnr(
    data: Any,
    max_number: int | None = None,
    gSiz: Any = 15,
    gSig: Any = None,
    center_psf: bool = True,
    min_corr: float = 0.8,
    min_pnr: float = 10,
    seed_method: Any = "auto",
    deconvolve_options: Mapping[str, Any] | None = None,
    min_pixel: int = 3,
    bd: int = 1,
    thresh_init: float = 2,
    swap_dim: bool = True,
    save_video: bool = False,
    video_name: str = "initialization.mp4",
    background_filter: str = "disk",
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Cells from seeds with high local correlation and peak-to-noise ratio, taken out of the movie one by one.

    Parameters
    ----------
    data : (d1, d2, T) if `swap_dim`, else (T, d1, d2), any real dtype
        Movie; two copies of it are worked on. NaN counts as 0, and no cell is sought where nothing changes.
    max_number : int, optional
        Cells at most; None: a fifth of the pixels that could be seeds.
    gSiz : float or one per axis
        Diameter of a cell, pixels: it is fitted within +- gSiz of its seed.
    gSig : float or one per axis, optional
        Standard deviation of the filter, pixels; None: a quarter of `gSiz`.
    center_psf : bool
        Whether the filter has zero mean, which removes the background.
    min_corr, min_pnr : float
        Least local correlation and peak-to-noise ratio of a seed.
    seed_method : "auto", (n, 2) array, or ("semi", (n, 2) array)
        Positions (row, column) of seeds, in their order, instead of those that are found; or before these.
    deconvolve_options : mapping, optional
        Options of `constrained_foopsi`; default: p=1, noise_method="mean". p=0: traces are only cut at 0.
    min_pixel : int
        Smallest footprint, pixels.
    bd : int
        Width of the border without seeds, pixels.
    thresh_init : float
        Noise levels below which a value counts as zero for the local correlation.
    save_video, video_name
        Not supported: no film of the search is made.
    background_filter : {"disk"}
        Only the filter on a disc.

    Returns
    -------
    A : (d, K) float32, pixels in Fortran order
    C, C_raw, S : (K, T) float32
        Deconvolved traces, traces before that, spikes.
    center : (2, K)
        Centres of mass.

    Raises
    ------
    NotSupportedError
        A volume, `save_video`, seeds by clicking, or another filter.
    ParameterError
        Values that cannot work.

    References
    ----------
    Zhou et al. (2018), eLife 7:e28728, "Initialization of spatial and temporal components".
    """
    if save_video:
        raise NotSupportedError("save_video=True: no film of the search is made; plot the results instead")
    if background_filter != "disk":
        raise NotSupportedError(
            f"background_filter={background_filter!r}: the search filters with 'disk' only"
        )
    data = data if backend.is_cupy(data) else np.asarray(data)
    check_planes(data.shape)
    size = per_axis(gSiz, 2, "gSiz")
    sigma = [s / 4 for s in size] if gSig is None else per_axis(gSig, 2, "gSig")
    search = SeedSearch(
        gSig=(sigma[0], sigma[1]),
        gSiz=(round(size[0]), round(size[1])),
        max_number=max_number,
        center_psf=center_psf,
        min_corr=min_corr,
        min_pnr=min_pnr,
        min_pixel=min_pixel,
        bd=bd,
        thresh_init=thresh_init,
        seed_method=seed_method,
    )
    if deconvolve_options is not None:
        search = replace(search, deconvolution=deconvolve_options)
    module = backend.array_module(data)
    rows = backend.put(data if swap_dim else module.moveaxis(data, 0, -1)).astype("float32")
    dims = rows.shape[:2]
    cells = find_seeded(rows, search)
    center = centers_of_mass(cells.A, dims).T
    return cells.A.toarray(), cells.found.C, cells.raw, cells.found.S, center


def check_planes(shape: tuple[int, ...]) -> None:
    """Three axes, or an error that says so."""
    if len(shape) == 4:
        raise NotSupportedError("corr_pnr finds cells in planes; for a volume use method_init='greedy_roi'")
    if len(shape) != 3:
        raise MovieShapeError(f"the movie has shape {shape}: expected two axes of a plane, and time")


def find_seeded(rows: Array, search: SeedSearch, noise: Array | None = None) -> Seeded:
    """`init_neurons_corr_pnr` on (d1, d2, T) float32 on the device, which is worked on: what is left stays in it.

    `noise` is that of an earlier search in the same movie; None: it is measured.
    """
    xp = backend.arrays.xp(rows)
    rows[:] = xp.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    scene = _Scene(rows, search, noise)
    given = given_seeds(search.seed_method, rows.shape[:2])
    most = search.max_number
    for pixel in () if given is None else given:
        row, column = np.unravel_index(pixel, rows.shape[:2])
        scene.try_seed((int(row), int(column)))
    if places_of(search.seed_method)[0] == "manual":
        return scene.cells()
    most = len(scene.footprints) + (int(np.sum(scene.open)) // 5 if most is None else most)
    while len(scene.footprints) < most:
        seeds = scene.seeds()
        for seed in seeds:
            scene.try_seed(seed)
            if len(scene.footprints) == most:
                break
        if not seeds:
            break
    return scene.cells()


class _Scene:
    """The movie without the cells so far, the same filtered, and the images in which seeds are sought."""

    def __init__(self, rows: Array, search: SeedSearch, noise: Array | None) -> None:
        self.search, self.rows = search, rows
        self.dims = rows.shape[:2]
        self.kernel = search.kernel()
        xp = backend.arrays.xp(rows)
        dead = backend.to_numpy(rows.max(axis=-1) == rows.min(axis=-1))
        self.filtered = _filtered(_beyond_border(rows, dead), self.kernel)
        self.filtered -= self.filtered.mean(axis=-1, keepdims=True)
        if noise is None:
            noise = get_noise_fft(self.filtered, noise_method="mean")[0].astype("float32")
            noise = xp.maximum(noise, LEAST_NOISE * max(float(xp.median(noise)), 2.0**-100))
        self.noise = noise
        self.cn = np.zeros(self.dims, np.float32)
        self.pnr = np.zeros(self.dims, np.float32)
        self.open = np.ones(self.dims, bool)
        if search.bd:
            self.open[:] = False
            self.open[search.bd : -search.bd, search.bd : -search.bd] = True
        self.open &= ~dead
        self.renew((slice(0, self.dims[0]), slice(0, self.dims[1])))
        self.footprints: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self.raw: list[NDArray[np.float32]] = []
        self.found: list[Deconvolved] = []

    def renew(self, part: tuple[slice, ...]) -> None:
        """Correlation and peak-to-noise images of the pixels `part` of the field."""
        wide = tuple(
            slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(part, self.dims, strict=True)
        )
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(part, wide, strict=True))
        signals = self.filtered[wide]
        xp = backend.arrays.xp(signals)
        noise = self.noise[wide]
        peak = signals.max(axis=-1) / noise
        above = signals * (signals >= (self.search.thresh_init * noise)[..., None])
        del signals
        self.pnr[part] = backend.to_numpy(peak)[inner]
        self.cn[part] = backend.to_numpy(_neighbour_correlations(above, xp))[inner]

    def seeds(self) -> list[tuple[int, int]]:
        """Pixels to try next, the best first."""
        search = self.search
        good = self.open & (self.cn >= search.min_corr) & (self.pnr >= search.min_pnr)
        value = np.where(good, self.cn * self.pnr, 0)
        if not value.any():
            return []
        value = ndimage.median_filter(value, search.median)
        row, column = np.indices(self.dims)
        value = value + 1e-5 * (10 * column + row)  # of equal neighbours only one is a maximum
        highest = ndimage.maximum_filter(value, [max(round(size / 4), 1) for size in search.gSiz])
        chosen = self.open & (value == highest) & (value >= search.min_corr * search.min_pnr)
        at = np.argwhere(chosen)
        order = np.argsort(-value[chosen], kind="stable")
        return [(int(r), int(c)) for r, c in at[order]]

    def try_seed(self, seed: tuple[int, int]) -> None:
        """Take the cell at `seed`, if there is one, out of the movie."""
        if not self.open[seed]:
            return
        self.open[seed] = False
        trace = backend.to_numpy(self.filtered[seed])
        change = np.diff(trace)
        if not len(change) or change.max() < LEAST_JUMP * change.std():
            return
        reach = [round(size) for size in self.search.gSiz]
        box = tuple(
            slice(max(x - r, 0), min(x + r + 1, n)) for x, r, n in zip(seed, reach, self.dims, strict=True)
        )
        shape, raw = self._fit(box, (seed[0] - box[0].start, seed[1] - box[1].start))
        if shape is None or (shape > 0).sum() < self.search.min_pixel:
            return
        found = _deconvolved(raw, self.search.deconvolution)
        if not np.isfinite(found.C).all() or not found.C.any():
            return
        self._keep(box, shape, raw, found)

    def _fit(self, box: tuple[slice, ...], seed: tuple[int, int]) -> tuple[NDArray | None, NDArray]:
        """Footprint in the box, None if there is none, and trace of the cell at `seed`."""
        xp = backend.arrays.xp(self.rows)
        size = self.filtered[box].shape
        filtered = self.filtered[box].reshape(-1, size[-1])
        raw = self.rows[box].reshape(-1, size[-1])
        centred = filtered - filtered.mean(axis=1, keepdims=True)
        norms = xp.sqrt(xp.einsum("it,it->i", centred, centred))
        at = seed[0] * size[1] + seed[1]
        correlation = xp.matmul(centred, centred[at]) / xp.maximum(norms * norms[at], 2.0**-100)
        likeness = backend.to_numpy(correlation)
        core, outside = np.flatnonzero(likeness > CORE), np.flatnonzero(likeness < OUTSIDE)
        if not len(core):
            return None, np.zeros(0)
        trace = filtered[core].mean(axis=0)
        common = xp.median(raw[outside], axis=0) if len(outside) else xp.ones(size[-1], "float32")
        shape = backend.to_numpy(_first_coefficient(raw, trace, common)).reshape(size[:2])
        if not np.isfinite(shape).all():
            return None, np.zeros(0)
        return one_cell(np.maximum(shape, 0), seed), _without_baseline(backend.to_numpy(trace))

    def _keep(self, box: tuple[slice, ...], shape: NDArray, raw: NDArray, found: Deconvolved) -> None:
        xp = backend.arrays.xp(self.rows)
        self.open[box] &= shape <= shape.max() / 2
        trace = backend.put(found.C[0])
        cell = backend.put(shape.astype(np.float32))
        self.rows[box] -= xp.multiply(cell[..., None], trace)
        image = np.zeros(self.dims, np.float32)
        image[box] = shape
        smooth = backend.to_numpy(
            backend.wing(self.rows).filters.correlate(backend.put(image[None]), self.kernel, "replicate")
        )[0]
        at = np.argwhere(smooth)
        touched = tuple(slice(int(a), int(b) + 1) for a, b in zip(at.min(0), at.max(0), strict=True))
        centred = trace - trace.mean()
        self.filtered[touched] -= xp.multiply(backend.put(smooth[touched])[..., None], centred)
        self.renew(touched)
        row, column = np.nonzero(shape)
        pixels = np.ravel_multi_index((row + box[0].start, column + box[1].start), self.dims, order="F")
        self.footprints.append((pixels, shape[row, column].astype(np.float32)))
        self.raw.append(raw.astype(np.float32))
        self.found.append(found)

    def cells(self) -> Seeded:
        """All cells so far."""
        K, T = len(self.footprints), self.rows.shape[-1]
        p = int(self.search.deconvolution.get("p") or 0)
        found = Deconvolved.none_yet(K, T, p)
        for k, part in enumerate(self.found):
            found.write(np.array([k]), part)
        column = np.repeat(np.arange(K), [len(pixels) for pixels, _ in self.footprints])
        pixels = np.concatenate([np.zeros(0, np.int64), *(at for at, _ in self.footprints)])
        values = np.concatenate([np.zeros(0, np.float32), *(value for _, value in self.footprints)])
        A = csc_matrix((values, (pixels, column)), shape=(int(np.prod(self.dims)), K))
        return Seeded(
            csc_matrix(A, dtype=np.float32), np.array(self.raw, np.float32).reshape(K, T), found, self.noise
        )


def _beyond_border(rows: Array, dead: NDArray[np.bool_]) -> Array:
    """The movie with its nearest live pixel in the place of each that never changes: a border that registration left.

    Beside it the blurred background would end at an edge, which the filter takes for cells.
    """
    if not dead.any() or dead.all():
        return rows
    nearest = ndimage.distance_transform_edt(dead, return_distances=False, return_indices=True)
    there = np.ravel_multi_index(tuple(nearest), dead.shape)[dead]
    filled = rows.reshape(-1, rows.shape[-1]).copy()
    filled[backend.put(np.flatnonzero(dead))] = filled[backend.put(there)]
    return filled.reshape(rows.shape)


def _filtered(rows: Array, kernel: NDArray) -> Array:
    """(d1, d2, T) movie, each frame filtered."""
    xp = backend.arrays.xp(rows)
    out = xp.empty_like(rows)
    for start in range(0, rows.shape[-1], FRAMES_FILTERED_AT_ONCE):
        part = slice(start, start + FRAMES_FILTERED_AT_ONCE)
        frames = xp.ascontiguousarray(xp.moveaxis(rows[..., part], -1, 0))
        out[..., part] = xp.moveaxis(
            backend.wing(frames).filters.correlate(frames, kernel, "replicate"), 0, -1
        )
    return out


def _neighbour_correlations(signals: Array, xp: Any) -> Array:
    """Mean correlation of each pixel with its eight neighbours; 0 for a constant. `signals` are worked on."""
    signals -= signals.mean(axis=-1, keepdims=True)
    norms = xp.sqrt(xp.einsum("ijt,ijt->ij", signals, signals))
    signals /= xp.where(norms > 0, norms, 1.0)[..., None].astype("float32")
    height, width = norms.shape
    total, count = xp.zeros((height, width), "float32"), xp.zeros((height, width), "float32")
    for row, column in ((0, 1), (1, -1), (1, 0), (1, 1)):
        here = slice(0, height - row), slice(max(-column, 0), width - max(column, 0))
        there = slice(row, height), slice(max(column, 0), width + min(column, 0))
        rho = xp.einsum("ijt,ijt->ij", signals[here], signals[there])
        for part in (here, there):
            total[part] += rho
            count[part] += 1
    return total / xp.maximum(count, 1)


def _first_coefficient(raw: Array, trace: Array, common: Array) -> Array:
    """Of each row regressed on [trace, common, 1]: the coefficient of `trace`."""
    xp = backend.arrays.xp(raw)
    X = backend.to_numpy(xp.stack([trace, common])).astype(np.float64)
    X = np.vstack([X - X.mean(1, keepdims=True), np.ones(X.shape[1])])
    scale = np.maximum(np.sqrt((X**2).sum(1)), 2.0**-100)
    weights = np.linalg.pinv(X / scale[:, None])[:, 0] / scale[0]
    return xp.matmul(raw, backend.put(weights.astype(np.float32)))


def _without_baseline(trace: NDArray) -> NDArray[np.float64]:
    """A trace less the median of what it is where it neither falls nor jumps."""
    trace = np.asarray(trace, np.float64)
    noise = float(get_noise_fft(trace[None], noise_method="mean")[0][0])
    change = np.diff(trace, prepend=trace[0] + 1)
    quiet = trace[(change >= 0) & (change < noise)]
    return trace - np.median(quiet if len(quiet) else trace)


def _deconvolved(raw: NDArray, options: Mapping[str, Any]) -> Deconvolved:
    p = int(options.get("p") or 0)
    return deconvolve_traces(
        raw[None].astype(np.float32), p, **{k: v for k, v in options.items() if k != "p"}
    )
