"""Reading a movie in chunks, beside reading its file whole; and writing a memory map."""

import h5py
import numpy as np
import pytest
import tifffile

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.movies import open_movie, save_memmap

FRAMES, SHAPE = 1500, (512, 512)
BYTES = FRAMES * SHAPE[0] * SHAPE[1] * 2


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
    return path


@pytest.fixture(scope="module")
def maps(folder):
    """The movie as a memory map of either order."""
    return {order: save_memmap([folder / "film.npy"], str(folder / "map"), order=order) for order in "FC"}


def read_all(path):
    for _ in backend.stream(open_movie(path)):
        pass


@pytest.mark.benchmark(group="stream 1500x512x512 uint16")
@pytest.mark.parametrize("name", ["film.npy", "film.tif", "pages.tif", "film.h5", "chunked.h5"])
def test_stream(benchmark, wing, folder, name):
    path = folder / name
    peers = [Peer("numpy.fromfile", "numpy", lambda numpy: numpy.fromfile(path, np.uint8))]
    if path.suffix == ".tif":
        peers.append(Peer("tifffile.imread", "tifffile", lambda tifffile: tifffile.imread(path)))
    timed(benchmark, wing, read_all, path, bytes_moved=2 * BYTES, frames=FRAMES, peers=peers)


@pytest.mark.benchmark(group="save_memmap 1500x512x512 uint16 to float32")
@pytest.mark.parametrize("order", ["F", "C"])
def test_save_memmap(benchmark, wing, folder, order):
    if wing.name == "cuda":
        pytest.skip("files are written by the CPU")
    base = str(folder / "map")
    timed(
        benchmark,
        wing,
        save_memmap,
        [folder / "film.npy"],
        base_name=base,
        order=order,
        bytes_moved=3 * BYTES,
        frames=FRAMES,
    )


@pytest.mark.benchmark(group="stream a memory map of 1500x512x512 float32")
@pytest.mark.parametrize("order", ["F", "C"])
def test_stream_a_map(benchmark, wing, maps, order):
    timed(benchmark, wing, read_all, maps[order], bytes_moved=4 * BYTES, frames=FRAMES)


@pytest.mark.benchmark(group="memory map of 1500x512x512 float32 from frames to traces")
def test_turn_a_map(benchmark, wing, maps, folder):
    if wing.name == "cuda":
        pytest.skip("files are written by the CPU")

    def copy(numpy):
        source = numpy.memmap(maps["F"], np.float32, "r")
        numpy.copyto(numpy.memmap(folder / "copy.bin", np.float32, "w+", shape=source.shape), source)

    peers = [Peer("numpy.copyto, file to file", "numpy", copy)]
    timed(
        benchmark,
        wing,
        save_memmap,
        [maps["F"]],
        base_name=str(folder / "turned"),
        order="C",
        bytes_moved=4 * BYTES,
        frames=FRAMES,
        peers=peers,
    )
