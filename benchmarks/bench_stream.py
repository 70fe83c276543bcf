"""Reading a movie in chunks, beside reading its file whole."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.movies import open_movie

FRAMES, SHAPE = 1500, (512, 512)
BYTES = FRAMES * SHAPE[0] * SHAPE[1] * 2
STORES = {"two.zarr": 2, "three.zarr": 3}  # and the version of the format


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("film")
    movie = np.random.default_rng(0).integers(0, 4000, (FRAMES, *SHAPE), dtype=np.uint16)
    np.save(path / "film.npy", movie)
    tifffile.imwrite(path / "film.tif", movie, bigtiff=True)
    with tifffile.TiffWriter(path / "pages.tif", bigtiff=True) as writer:
        for frame in movie:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    with h5py.File(path / "film.h5", "w") as file:
        file["mov"] = movie
    with h5py.File(path / "chunked.h5", "w") as file:
        file.create_dataset("mov", data=movie, chunks=(64, 128, 128))
    for name, version in STORES.items():
        if zarr := _zarr():
            store = zarr.create_array(
                path / name,
                shape=movie.shape,
                dtype=movie.dtype,
                chunks=(64, 128, 128),
                compressors=None,
                zarr_format=version,
            )
            store[:] = movie
    os.sync()  # what is not on the disk yet cannot be dropped from memory
    return path


def _zarr():
    try:
        import zarr
    except ImportError:
        return None
    return zarr


def read_all(path):
    for _ in backend.stream(open_movie(path)):
        pass


def forget(path):
    """Drop what the system keeps of a file, or of those in a folder, in memory: it comes from the disk again."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def keep(path):
    """Leave it in memory."""


@pytest.mark.benchmark(group="stream 1500x512x512 uint16")
@pytest.mark.parametrize("state", ["warm", "cold"])
@pytest.mark.parametrize("name", ["film.npy", "film.tif", "pages.tif", "film.h5", "chunked.h5", *STORES])
def test_stream(benchmark, wing, folder, name, state):
    """Beside `numpy.fromfile` on as many bytes in the same state: in memory already, or on the disk only."""
    path: Path = folder / name
    if not path.exists():
        pytest.skip("Zarr is not installed")
    if state == "cold" and not hasattr(os, "posix_fadvise"):
        pytest.skip("this system does not drop files from memory")
    prepare = forget if state == "cold" else keep
    same = folder / "film.npy" if path.is_dir() else path

    def ours():
        prepare(path)
        read_all(path)

    def whole(numpy):
        prepare(same)
        numpy.fromfile(same, numpy.uint8)

    peers = [Peer("numpy.fromfile", "numpy", whole)]
    if path.suffix == ".tif" and state == "warm":
        peers.append(Peer("tifffile.imread", "tifffile", lambda tifffile: tifffile.imread(path)))
    timed(benchmark, wing, ours, bytes_moved=2 * BYTES, frames=FRAMES, peers=peers)
