"""Memory maps: written from frames and traces, turned, joined and read, beside a plain copy of the same bytes.

The peer is ``numpy.copyto`` from one mapped file into another that is new: `speedup_over_fastest_peer` is the part of
raw copy speed that is reached.
"""

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.movies import open_movie, save_memmap, save_memmap_join
from gpucalcium.registration.output import open_output

MOVIES = {"planes": (1500, 512, 512), "volumes": (400, 256, 256, 15)}
BYTES = 4


@pytest.fixture(scope="module", params=MOVIES)
def maps(request, tmp_path_factory):
    """A movie as an array on disk and as a memory map of either order."""
    folder = tmp_path_factory.mktemp("maps")
    shape = MOVIES[request.param]
    film = np.lib.format.open_memmap(folder / "film.npy", "w+", np.float32, shape)
    for frame in film:
        frame[...] = np.random.default_rng(0).normal(size=shape[1:])
    film.flush()
    paths = {"film": folder / "film.npy"}
    for order in "FC":
        paths[order] = save_memmap([paths["film"]], str(folder / "map"), order=order)
    return folder, paths, shape


@pytest.fixture(autouse=True)
def _on_the_cpu(wing):
    if wing.name == "cuda":
        pytest.skip("files are written by the CPU")


def copy(maps):
    """The peer."""
    folder, paths, _ = maps

    def run(numpy):
        source = numpy.memmap(paths["F"], numpy.float32, "r")
        target = numpy.memmap(folder / "copy.bin", numpy.float32, "w+", shape=source.shape)
        numpy.copyto(target, source)
        (folder / "copy.bin").unlink()

    return [Peer("numpy.copyto, file to file", "numpy", run)]


def measured(benchmark, wing, maps, function, *args, **kwargs):
    _, _, shape = maps
    size = BYTES * int(np.prod(shape))
    timed(
        benchmark,
        wing,
        function,
        *args,
        bytes_moved=2 * size,
        frames=shape[0],
        peers=copy(maps),
        **kwargs,
    )


@pytest.mark.benchmark(group="save_memmap, float32")
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("source", ["film", "F", "C"])
@pytest.mark.parametrize("memory", ["60%", "512MiB"])
def test_save_memmap(benchmark, wing, maps, source, order, memory):
    folder, paths, _ = maps
    with backend.limit(memory=memory):
        measured(
            benchmark, wing, maps, save_memmap, [paths[source]], base_name=str(folder / "new"), order=order
        )


@pytest.mark.benchmark(group="save_memmap_join, two maps, float32")
@pytest.mark.parametrize("order", ["F", "C"])
def test_join(benchmark, wing, maps, order):
    folder, paths, shape = maps
    halves = [
        save_memmap([paths["film"]], str(folder / f"half{k}"), order=order, slices=part)
        for k, part in enumerate((slice(0, shape[0] // 2), slice(shape[0] // 2, None)))
    ]
    measured(benchmark, wing, maps, save_memmap_join, halves, base_name=str(folder / "joined"))


@pytest.mark.benchmark(group="stream a memory map, float32")
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("memory", ["60%", "512MiB"])
def test_stream(benchmark, wing, maps, order, memory):
    _, paths, _ = maps

    def read_all():
        for _ in backend.stream(open_movie(paths[order])):
            pass

    with backend.limit(memory=memory):
        measured(benchmark, wing, maps, read_all)


@pytest.mark.benchmark(group="open_output, registered frames into a file")
@pytest.mark.parametrize(
    ("format", "dtype", "order"),
    [
        ("mmap", "float32", "F"),
        ("mmap", "float32", "C"),
        ("hdf5", "float32", "F"),
        ("hdf5", "int16", "F"),
        ("hdf5", "float16", "F"),
        ("tiff", "uint16", "F"),
        ("zarr", "float32", "F"),
    ],
)
def test_output(benchmark, wing, tmp_path, format, dtype, order):
    frames = np.random.default_rng(0).normal(300, 100, (1000, 256, 256)).astype(np.float32)

    def write():
        where = tmp_path / "registered"
        with open_output(where, frames.shape, dtype=dtype, format=format, order=order) as out:
            for start in range(0, len(frames), 64):
                out.sink(start, frames[start : start + 64])

    def raw(_):
        frames.astype(dtype).tofile(tmp_path / "raw.bin")
        (tmp_path / "raw.bin").unlink()

    moved = frames.nbytes + frames.size * np.dtype(dtype).itemsize
    peers = [Peer("ndarray.astype and tofile", "numpy", raw)]
    timed(benchmark, wing, write, bytes_moved=moved, frames=len(frames), peers=peers)
