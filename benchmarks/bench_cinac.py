"""CINAC prediction in cells x frames per second, beside one call of the same network per cell and window.

Weights are drawn at random: the time does not depend on them. The bound is the movie read once, far off: `cinac_counts`
has the operations, which are what counts. Of the full network both ways run at the rate of the processor's products, so
that the ratio is that of the operations.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend, nets
from gpucalcium.cinac import CinacDataMovie, CinacRecording
from gpucalcium.cinac.cutouts import corner
from gpucalcium.cinac.masks import draw_mask
from gpucalcium.cinac.prediction import predict_activity
from gpucalcium.cinac.windows import window_starts

FIELD = (128, 128)
NETWORKS = {
    "full": nets.NetworkSpec(),
    "shipped": nets.NetworkSpec(
        patch_size=17,
        conv_filters=(8, 8, 16, 16),
        lstm_sizes=(32,),
        bin_lstm_size=32,
        attention=False,
        batch_norm=True,
    ),
}
"""33 million weights, and as small as the classifier that comes with the library."""
SIZES = {
    "cpu": {"full": (2, 500), "shipped": (20, 1000)},
    "cuda": {"full": (200, 2500), "shipped": (200, 2500)},
}
"""Cells and frames."""


def recording(n_cells: int, n_frames: int) -> CinacRecording:
    """Discs on a grid, each of which touches the next."""
    rng = np.random.default_rng(0)
    made = CinacRecording("benchmark")
    made.set_movie(CinacDataMovie(rng.normal(500, 50, (n_frames, *FIELD)).astype(np.int16)))
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    side = int(np.ceil(n_cells**0.5))
    places = [(12 + 104 * (k % side) / side, 12 + 104 * (k // side) / side) for k in range(n_cells)]
    places[1] = (places[0][0] + 8, places[0][1])
    made.set_rois_2d_array(
        [np.stack([x + 5 * np.cos(angles), y + 5 * np.sin(angles)]) for x, y in places], from_matlab=False
    )
    return made


def window_by_window(rec: CinacRecording, n_cells: int, network: nets.Network, overlap: float) -> np.ndarray:
    """Masks of the cell and its neighbours drawn for every window, three copies of it, one call of the network."""
    n_frames, length, side = rec.get_n_frames(), network.window_len, network.patch_size
    movie = rec.movie.get_full_movie(normalized=True)
    out = np.zeros((n_cells, n_frames), np.float32)
    for cell in range(n_cells):
        for start in window_starts(n_frames, length, overlap):
            y, x = corner(rec.cells, cell, FIELD, side, network.mask_mode)
            own = draw_mask(rec.cells.polygons[cell], (side, side), (x, y), network.buffer)
            others = np.zeros_like(own)
            for other in rec.cells.neighbours[cell]:
                others |= draw_mask(rec.cells.polygons[other], (side, side), (x, y), network.buffer)
            crop = movie[start : start + length, y : y + side, x : x + side].astype(np.float64)
            masks = (own, others, ~(own | others))
            windows = {f"input_{k}": (crop.copy() * mask)[None, ..., None] for k, mask in enumerate(masks)}
            here = out[cell, start : start + length]
            np.maximum(here, network.predict(windows).ravel(), out=here)
    return out


@pytest.mark.benchmark(group="CINAC activity, cells x frames")
@pytest.mark.parametrize("overlap", [0.5, 0.8])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("size", NETWORKS)
def test_activity(benchmark, wing, size, overlap, precision):
    n_cells, n_frames = SIZES[wing.name][size]
    rec, network = recording(n_cells, n_frames), nets.build_network(NETWORKS[size], precision=precision)
    rec.movie.std  # noqa: B018 - the pass for mean and deviation is not what is measured
    few = n_cells if wing.name == "cpu" else 2
    timed(
        benchmark,
        wing,
        predict_activity,
        rec,
        range(n_cells),
        network,
        overlap=overlap,
        bytes_moved=n_frames * FIELD[0] * FIELD[1] * 2,
        frames=n_cells * n_frames,
        peers=[
            Peer(
                "window by window" + ("" if few == n_cells else f", {few} cells"),
                "gpucalcium",
                lambda _: window_by_window(rec, few, network, overlap),
            )
        ],
    )


@pytest.mark.benchmark(group="CINAC squares")
def test_gather(benchmark, wing):
    """Squares of 1,000 cells in a chunk of frames, three views of each."""
    frames = wing.put(np.random.default_rng(0).normal(500, 50, (8, 512, 512)).astype(np.int16))
    rng = np.random.default_rng(1)
    corners = wing.put(rng.integers(0, 480, (3000, 2)).astype(np.int32))
    masks = wing.put(rng.random((3000, 25, 25)) < 0.5)
    timed(
        benchmark,
        wing,
        backend.wing(frames).cutouts.gather_patches,
        frames,
        corners,
        masks,
        500.0,
        50.0,
        bytes_moved=frames.nbytes + 8 * 4 * masks.size,
        frames=8,
    )
