"""The start of a one-photon run: search for cells, ring model, and search again in what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, hstack, identity

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._movie import PixelMovie, images_movie
from gpucalcium.cnmf.cell_extent import SAME_PLACE, groups_at_one_place, reach, within_reach
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.background import Streamed, background_nmf
from gpucalcium.cnmf.initialization.cell_or_background import is_background
from gpucalcium.cnmf.initialization.corr_pnr import SeedSearch, check_planes, find_seeded
from gpucalcium.cnmf.initialization.downscale import upscale_footprints, upscale_traces
from gpucalcium.cnmf.initialization.greedy import per_axis, places_of
from gpucalcium.cnmf.initialization.refine import LEAST_SKEWNESS, skewness
from gpucalcium.cnmf.merging import groups_to_merge, merge_groups
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.ring import RingModel, RingResidual
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.cnmf.temporal import Deconvolved, update_temporal_components
from gpucalcium.deconvolution import movie_noise
from gpucalcium.errors import MemoryBudgetError, MovieShapeError, NotSupportedError, ParameterError
from gpucalcium.movies import open_movie

SPATIAL_OPTIONS = (
    "dist expandCore extract_cc maxthr medw method_exp method_ls normalize_yyt_one nrgthr se ss thr_method"
).split()
NO_CLOSING = np.ones((1, 1))


class Cells(NamedTuple):
    """Footprints, traces with what their deconvolution found, and residual traces."""

    A: csc_matrix
    found: Deconvolved
    YrA: NDArray[np.float32]

    @property
    def C(self) -> NDArray[np.float32]:
        """Traces, (K, T)."""
        return self.found.C

    def at(self, index: NDArray) -> Cells:
        """Some of the cells."""
        return Cells(self.A[:, index], self.found.at(index), self.YrA[index])


class Start(NamedTuple):
    """What a one-photon initialisation finds, at full size."""

    cells: Cells
    b: Any
    f: NDArray
    ring: RingModel | None


@dataclass(frozen=True, kw_only=True)
class OnePhoton:
    """How the background of a one-photon movie is modelled, and what refines the cells beside it."""

    ring_size_factor: float | None
    """Radius of the ring over the diameter of a cell; None: no ring, a background of low rank instead."""
    ssub_B: int
    """Side of the blocks of the ring model, pixels of the movie that is searched."""
    init_iter: int
    nb: int
    spatial: Mapping[str, Any]
    temporal: Mapping[str, Any]
    merge_thr: float

    @classmethod
    def with_options(cls, options: Mapping[str, Any] | None, **given: Any) -> OnePhoton:
        """Options of the groups `spatial`, `temporal` and `merging` of parameters; None: their defaults."""
        options = CNMFParams().groups if options is None else options
        missing = [name for name in ("spatial", "temporal", "merging") if name not in options]
        if missing:
            raise ParameterError(
                f"options lack the parameter group {missing[0]!r}; give CNMFParams().to_dict()"
            )
        spatial = {name: options["spatial"][name] for name in SPATIAL_OPTIONS if name in options["spatial"]}
        temporal = {key: value for key, value in options["temporal"].items() if key not in ("nb", "p")}
        p = options["temporal"].get("p") or 0
        merging = options["merging"]
        return cls(spatial=spatial, temporal={**temporal, "p": p}, merge_thr=merging["merge_thr"], **given)

    def refined(
        self, movie: PixelMovie, A: csc_matrix, C: NDArray, sn: NDArray, far: tuple[float, ...], whole: bool
    ) -> Cells:
        """Footprints that go no farther than `far`, then traces, of a movie without background.

        `whole`: as a run does, else more coarsely.
        """
        spatial = {**self.spatial, "se": NO_CLOSING} if whole else self.spatial
        if A.shape[1]:
            A, _, C, _ = update_spatial_components(
                movie,
                C=C,
                f=None,
                A_in=A,
                sn=sn,
                dims=movie.dims,
                update_background_components=False,
                **spatial,
            )
            A = within_reach(A, movie.dims, far)
        options = dict(self.temporal) if whole else self.quick()
        C, A, _, _, S, bl, c1, noise, g, YrA, lam = update_temporal_components(
            movie, A, None, C, None, **options
        )
        return Cells(csc_matrix(A), Deconvolved(C, S, bl, c1, noise, g, lam), YrA)

    def quick(self) -> dict[str, Any]:
        """Options of a deconvolution that is only a start: decay alone, and an L1 penalty."""
        return {**self.temporal, "p": min(int(self.temporal["p"]), 1), "s_min": None}

    def merged(self, cells: Cells, whole: bool) -> Cells:
        """Overlapping cells of one trace, and cells at one place, made one."""
        options = self.temporal if whole else self.quick()
        cells = _merged(cells, groups_to_merge(cells.A, cells.C, self.merge_thr), options)
        return _merged(cells, groups_at_one_place(cells.A), options)


def _merged(cells: Cells, groups: list[NDArray[np.int64]], options: Mapping[str, Any]) -> Cells:
    found = cells.found
    A, C, _, _, S, bl, c1, sn, g, _, R = merge_groups(
        cells.A, found.C, cells.YrA, found.S, groups, options, True, found.bl, found.c1, found.sn, found.g
    )
    return Cells(csc_matrix(A), Deconvolved(C, S, bl, c1, sn, g, np.full(len(C), np.nan)), R)


def greedyROI_corr(
    Y: Any,
    Y_ds: Any,
    max_number: int | None = None,
    gSiz: Any = None,
    gSig: Any = None,
    center_psf: bool = True,
    min_corr: float | None = None,
    min_pnr: float | None = None,
    seed_method: Any = "auto",
    min_pixel: int = 3,
    bd: int = 0,
    thresh_init: float = 2,
    ring_size_factor: float | None = None,
    nb: int = 1,
    options: Mapping[str, Any] | None = None,
    sn: NDArray | None = None,
    save_video: bool = False,
    video_name: str = "initialization.mp4",
    ssub: int = 1,
    ssub_B: int = 2,
    init_iter: int = 2,
) -> tuple[Any, ...]:
    """Cells of a one-photon movie and its background.

    Cells are sought where pixels correlate and peaks stand above the noise, the ring model of the background is fitted
    to what they leave, and the search is repeated in what both leave.

    Parameters
    ----------
    Y : (d1, d2, T), any real dtype
        Movie.
    Y_ds : (ceil(d1 / ssub), ceil(d2 / ssub), T')
        The same averaged over blocks: what is searched. The number of frames averaged follows from the two lengths.
    max_number, gSiz, gSig, center_psf, min_corr, min_pnr, seed_method, min_pixel, bd, thresh_init
        See `init_neurons_corr_pnr`; sizes and seeds in pixels of `Y_ds`, `min_corr` (None: 0.8) as for `Y`: a
        Gaussian spot that correlates by r over one pixel does so by r^(ssub^2) over `ssub`, and so the bound is
        moved. `min_pnr` (None: 10) is that of the movie that is searched: to a filtered trace averaging over space
        adds nothing, and averaging over time takes of a transient's peak nearly what it takes of the noise.
    ring_size_factor : float, optional
        Radius of the ring over `gSiz`; None: no ring model.
    nb : int
        0: the ring model itself (W, b0); > 0: its background as a factorisation of this rank; -1: the background of
        every frame, as large as the movie; < -1: none.
    options : mapping, optional
        Parameter groups `spatial`, `temporal` and `merging`; default those of `CNMFParams`.
    sn : (d,), optional
        Noise level of the pixels of `Y`, in Fortran order; None: measured.
    save_video, video_name
        Not supported: no film of the search is made.
    ssub : int
        Down-sampling of `Y_ds` in space.
    ssub_B : int
        Side of the blocks of pixels of the ring model.
    init_iter : int
        Searches.

    Returns
    -------
    A : (d, K), C : (K, T), center : (2, K), b : (d, nb), f : (nb, T)
        Pixels in Fortran order.
    extra : tuple
        S, bl, c1, neurons_sn, g, YrA, lam, and for nb = 0 also W and b0; see `compute_W`.

    Raises
    ------
    NotSupportedError
        A volume, `save_video`, or seeds by clicking.
    MovieShapeError
        `Y` and `Y_ds` that do not go together.
    ParameterError
        Values that cannot work, and sizes that are missing.

    References
    ----------
    Zhou et al. (2018), eLife 7:e28728, algorithm 1.
    """
    if save_video:
        raise NotSupportedError("save_video=True: no film of the search is made; plot the results instead")
    if gSiz is None or gSig is None:
        raise ParameterError(f"gSiz={gSiz}, gSig={gSig}: give the size of a cell in pixels of Y_ds")
    Y, Y_ds = (x if backend.is_cupy(x) else np.asarray(x) for x in (Y, Y_ds))
    check_planes(Y.shape)
    check_planes(Y_ds.shape)
    dims, T, frames = Y.shape[:2], Y.shape[2], Y_ds.shape[2]
    tsub = -(-T // max(frames, 1))
    if Y_ds.shape != (*(-(-n // ssub) for n in dims), -(-T // tsub)):
        raise MovieShapeError(f"Y_ds has shape {Y_ds.shape}, which Y, {Y.shape}, has not with ssub={ssub}")
    sigma, size = per_axis(gSig, 2, "gSig"), per_axis(gSiz, 2, "gSiz")
    search = SeedSearch(
        gSig=(sigma[0], sigma[1]),
        gSiz=(round(size[0]), round(size[1])),
        max_number=max_number,
        center_psf=center_psf,
        min_corr=0.8 if min_corr is None else min_corr,
        min_pnr=10 if min_pnr is None else min_pnr,
        min_pixel=min_pixel,
        bd=bd,
        thresh_init=thresh_init,
        seed_method=seed_method,
    )
    model = OnePhoton.with_options(
        options, ring_size_factor=ring_size_factor, ssub_B=ssub_B, init_iter=init_iter, nb=nb
    )
    movie = images_movie(backend.array_module(Y).moveaxis(Y, -1, 0))
    with movie.device():
        small = backend.put(backend.array_module(Y_ds).moveaxis(Y_ds, -1, 0)).astype("float32")
        found = start_one_photon(movie, small, ssub, tsub, search, model, sn)
    cells = found.cells
    center = centers_of_mass(cells.A, movie.dims).T
    return cells.A.toarray(), cells.C, center, found.b, found.f, extra_results(found)


def extra_results(found: Start) -> tuple[Any, ...]:
    """S, bl, c1, neurons_sn, g, YrA, lam[, W, b0]."""
    part = found.cells.found
    extra = (part.S, part.bl, part.c1, part.sn, part.g, found.cells.YrA, part.lam)
    return extra if found.ring is None else (*extra, found.ring.W(), found.ring.b0.ravel(order="F"))


def start_one_photon(
    movie: PixelMovie,
    small: Array,
    ssub: int,
    tsub: int,
    search: SeedSearch,
    model: OnePhoton,
    sn: NDArray | None,
) -> Start:
    """`greedyROI_corr` of a movie and its block means, (T', d1', d2') float32 on the device."""
    search = replace(
        search,
        min_corr=search.min_corr ** (ssub**2) if search.min_corr > 0 else search.min_corr,
        deconvolution=model.quick(),
    )
    if model.ring_size_factor is None:
        return _without_ring(movie, small, ssub, tsub, search, model)
    coarse = PixelMovie(open_movie(small), small.shape[1:])
    radius = model.ring_size_factor * search.gSiz[0]
    far = tuple(ssub * x for x in reach(search.gSig, search.gSiz))
    same = ssub == 1 and tsub == 1
    sn = _noise(movie) if sn is None else sn
    cells, ring = _search_in_turns(coarse, small, radius, search, model, sn if same else _noise(coarse))
    A = upscale_footprints(cells.A, movie.dims, ssub)
    C = upscale_traces(cells.C, movie.T, tsub)
    if ring is None or not same:
        ring = RingModel.fit(movie, A, C, radius * ssub, model.ssub_B)
    rest = ring.without_background(movie, A, C)
    if not same:
        cells = model.refined(rest, A, C, sn, far, whole=False)
    cells = model.merged(cells, whole=True)
    cells = model.refined(rest, cells.A, cells.C, sn, far, whole=True)
    if places_of(search.seed_method)[0] == "auto":
        cells = cells.at(~is_background(ring, movie, cells.A, cells.C, cells.YrA))
    b, f = _background(movie, ring, cells, model.nb)
    return Start(cells, b, f, ring if model.nb == 0 else None)


def _search_in_turns(
    movie: PixelMovie, frames: Array, radius: float, search: SeedSearch, model: OnePhoton, sn: NDArray
) -> tuple[Cells, RingModel | None]:
    """Cells of the movie that is searched: `init_iter` searches, each in what the model so far leaves.

    Also the ring model of what just these cells leave, if the last search found no others; else None.
    """
    far = reach(search.gSig, search.gSiz)
    still = frames.max(axis=0) == frames.min(axis=0)
    cells, noise = _found_in(_rows_of(frames), search)
    for turn in range(model.init_iter):
        ring = RingModel.fit(movie, cells.A, cells.C, radius, model.ssub_B)
        rest = ring.without_background(movie, cells.A, cells.C)
        if turn:
            most = search.max_number
            left = None if most is None else most - cells.A.shape[1]
            if left == 0 or places_of(search.seed_method)[0] == "manual":
                return cells, ring
            rows = _left_over(rest, cells)
            rows[still] = 0  # where nothing changes there is no background either
            more, _ = _found_in(rows, replace(search, max_number=left, seed_method="auto"), noise)
            new = _new_ones(more, cells)
            merged = model.merged(_together(cells, new), whole=False)
            if merged.A.shape[1] == cells.A.shape[1] and not new.A.shape[1]:
                return cells, ring
            cells = merged
        cells = model.refined(rest, cells.A, cells.C, sn, far, whole=False)
    return cells, None


def _rows_of(frames: Array) -> Array:
    """(T, d1, d2) as (d1, d2, T), copied."""
    xp = backend.arrays.xp(frames)
    return xp.ascontiguousarray(xp.moveaxis(frames, 0, -1)).copy()


def _noise(movie: PixelMovie) -> NDArray[np.float32]:
    return backend.to_numpy(movie_noise(movie.source, noise_method="mean")).ravel(order="F")


def _found_in(rows: Array, search: SeedSearch, noise: Array | None = None) -> tuple[Cells, Array]:
    """Cells of a search, and the noise level of the filtered movie."""
    seeded = find_seeded(rows, search, noise)
    return Cells(seeded.A, seeded.found, seeded.raw - seeded.found.C), seeded.noise


def _together(cells: Cells, more: Cells) -> Cells:
    pairs = zip(cells.found, more.found, strict=True)
    found = Deconvolved(*(np.concatenate([one, other]) for one, other in pairs))
    return Cells(csc_matrix(hstack([cells.A, more.A])), found, np.concatenate([cells.YrA, more.YrA]))


def _new_ones(more: Cells, cells: Cells) -> Cells:
    """What a search of the remainder finds, without what a known cell left and without misfits that go both ways."""
    norms, known = (np.sqrt(np.asarray(x.A.power(2).sum(0)).ravel()) for x in (more, cells))
    cosine = (more.A.T @ cells.A).toarray() / np.maximum(np.outer(norms, known), 2.0**-100)
    new = (cosine < SAME_PLACE).all(1) & (skewness(more.C + more.YrA) > LEAST_SKEWNESS)
    return more.at(new)


def _left_over(rest: RingResidual, cells: Cells) -> Array:
    """Y - B - A C, (d1, d2, T) on the device."""
    out = backend.empty((rest.d, rest.T), "float32")
    A = rest.in_frame_order(cells.A).tocsr()
    parts = tuple(map(backend.put, (A.data, A.indices, A.indptr)))
    model = backend.arrays.sparse(out).csr_matrix(parts, shape=A.shape)
    for start, frames in rest.frames():
        part = slice(start, start + len(frames))
        out[:, part] = frames.T
        if A.shape[1]:
            out[:, part] -= model @ backend.put(np.ascontiguousarray(cells.C[:, part]))
    return out.reshape(*rest.dims, rest.T)


def _background(movie: PixelMovie, ring: RingModel, cells: Cells, nb: int) -> tuple[Any, NDArray[np.float32]]:
    """b and f for the ring background of a movie, as `nb` says."""
    if nb == 0 or nb < -1:
        return np.zeros((movie.d, 0), np.float32), np.zeros((0, movie.T), np.float32)
    if nb > 0:
        return background_nmf(Streamed(ring.background(movie, cells.A, cells.C)), nb)
    f = _room_for_all(movie)
    for start, frames in ring.without_background(movie, cells.A, cells.C).backgrounds():
        f[:, start : start + len(frames)] = movie.in_fortran_order(backend.to_numpy(frames).T)
    return identity(movie.d, np.float32, format="csc"), f


def _room_for_all(movie: PixelMovie) -> NDArray[np.float32]:
    """An empty (d, T) array, which the background of nb=-1 is."""
    needed = 4 * movie.d * movie.T
    if needed > backend.budget():
        raise MemoryBudgetError(
            f"nb=-1 keeps the background of every frame, {needed / 2**20:.0f} MiB; the budget is "
            f"{backend.budget() / 2**20:.0f} MiB. Use nb=0, the ring model itself, or give more with "
            "GPUCALCIUM_MEMORY or backend.limit(memory=...)"
        )
    return np.empty((movie.d, movie.T), np.float32)


def _without_ring(
    movie: PixelMovie, small: Array, ssub: int, tsub: int, search: SeedSearch, model: OnePhoton
) -> Start:
    """One search; the background is a factorisation of what it leaves."""
    coarse = PixelMovie(open_movie(small), small.shape[1:])
    rows = _rows_of(small)
    A, raw, found, _ = find_seeded(rows, search)
    rest = backend.arrays.xp(rows).maximum(rows.reshape(coarse.d, coarse.T), 0)
    C, S, YrA = (upscale_traces(x, movie.T, tsub) for x in (found.C, found.S, raw - found.C))
    cells = Cells(upscale_footprints(A, movie.dims, ssub), found._replace(C=C, S=S), YrA)
    if model.nb < -1:
        return Start(cells, np.zeros((movie.d, 0), np.float32), np.zeros((0, movie.T), np.float32), None)
    if model.nb == -1:
        f = upscale_traces(coarse.in_fortran_order(backend.to_numpy(rest)), movie.T, tsub)
        f = upscale_footprints(csc_matrix(f), movie.dims, ssub).toarray()
        return Start(cells, identity(movie.d, np.float32, format="csc"), f, None)
    b, f = background_nmf(rest, model.nb)
    b = upscale_footprints(csc_matrix(coarse.in_fortran_order(b)), movie.dims, ssub).toarray()
    return Start(cells, b, upscale_traces(f, movie.T, tsub), None)
