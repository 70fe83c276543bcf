"""`open_movie`: every format, dtype and slice gives what plain indexing gives."""

import threading

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, MovieShapeError, ParameterError
from gpucalcium.movies import load_memmap, movie, open_movie
from gpucalcium.movies.raw import RawSource
from tests.movies import files

PLANES = (23, 7, 5)
VOLUMES = (6, 3, 7, 5)
DTYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64", ">u2", ">f4", "bool", "float16"]


def made(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 250, shape).astype(dtype)


def whole(source):
    return source.read(slice(None))


@pytest.mark.parametrize("shape", [PLANES, VOLUMES, (1, 4, 3), (5, 1, 3), (5, 3, 1)])
@pytest.mark.parametrize("kind", files.WRITERS)
def test_every_format_gives_the_frames(tmp_path, kind, shape):
    frames = made(shape)
    if kind == "pages tif" and len(shape) == 4:
        pytest.skip("each volume would be a series of its own")
    source = open_movie(files.WRITERS[kind](tmp_path, frames))
    assert source.shape == shape
    assert len(source) == len(frames)
    assert source.dtype == (np.float32 if "mmap" in kind else np.uint16)
    assert_array_equal(whole(source), frames)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", files.WRITERS)
def test_every_dtype_is_read(tmp_path, kind, dtype):
    frames = made(PLANES, dtype)
    if dtype == ">u2" and kind == "h5":
        assert h5py.File(files.WRITERS[kind](tmp_path, frames))["mov"].dtype == ">u2"
    source = open_movie(files.WRITERS[kind](tmp_path, frames))
    assert source.dtype.isnative
    assert_array_equal(whole(source), frames.astype(source.dtype))
    if "mmap" not in kind:
        expected = {"bool": "uint8", "float16": "float32"}.get(dtype, np.dtype(dtype).newbyteorder("="))
        assert source.dtype == expected


@given(
    kind=st.sampled_from(sorted(files.WRITERS)),
    dtype=st.sampled_from(DTYPES),
    frames=st.slices(PLANES[0]).filter(lambda s: s.step is None or s.step > 0),
    give_out=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_slice_of_any_format(tmp_path_factory, kind, dtype, frames, give_out):
    stored = made(PLANES, dtype)
    source = open_movie(files.WRITERS[kind](tmp_path_factory.mktemp("any"), stored))
    expected = stored[frames].astype(source.dtype)
    out = np.full(expected.shape, 99, source.dtype) if give_out else None
    result = source.read(frames, out)
    assert_array_equal(result, expected)
    assert result.dtype == source.dtype
    assert result is out or not give_out


SELECTIONS = [
    3,
    -1,
    slice(2, 20, 3),
    slice(None, None, -1),
    range(4, 9),
    [5, 1, 1, 2],
    np.array([0, 2, 4]),
    np.arange(23) % 5 == 0,
    (slice(3, 9), slice(1, None)),
    (slice(None), 2, slice(None, None, 2)),
    ([7, 3], [0, 6], slice(1, 2)),
    (slice(None), np.arange(7) > 2),
]


@pytest.mark.parametrize("kind", ["tif", "zlib tif", "mmap C", "h5"])
@pytest.mark.parametrize("subindices", SELECTIONS, ids=str)
def test_part_of_a_movie(tmp_path, kind, subindices):
    frames = made(PLANES)
    source = open_movie(files.WRITERS[kind](tmp_path, frames), subindices=subindices)
    expected = frames
    for axis, selector in enumerate(subindices if isinstance(subindices, tuple) else (subindices,)):
        index = [selector] if np.ndim(selector) == 0 and not isinstance(selector, slice) else selector
        index = list(index) if isinstance(index, range) else index
        expected = expected[(slice(None),) * axis + (index,)]
    assert source.shape == expected.shape
    assert_array_equal(whole(source), expected)
    assert_array_equal(source.read(slice(1, None, 2)), expected[1::2])


@pytest.mark.parametrize(
    ("subindices", "text"),
    [(99, "axis 0.*length is 23"), ((0, 99), "axis 1"), ((0,) * 4, "4 selectors.*3 axes"), ("a", "axis 0")],
)
def test_a_wrong_part_is_refused(tmp_path, subindices, text):
    with pytest.raises(ParameterError, match=text):
        open_movie(made(PLANES), subindices=subindices)


def test_an_empty_part_is_refused():
    with pytest.raises(MovieShapeError, match="is empty"):
        open_movie(made(PLANES), subindices=slice(5, 5))


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "uint64"])
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "strided"])
def test_arrays_of_any_layout(wing, dtype, layout):
    frames = made(PLANES, dtype)
    given_array = {
        "C": frames,
        "F": np.asfortranarray(frames),
        "reversed": frames[::-1, ::-1],
        "strided": np.repeat(frames, 2, axis=2)[:, :, ::2],
    }[layout]
    source = open_movie(given_array)
    assert_array_equal(whole(source), given_array.astype(source.dtype))
    with backend.limit(chunk_frames=4):
        chunks = [backend.to_numpy(c) for c in backend.stream(source)]
    assert_array_equal(np.concatenate(chunks), given_array.astype(source.dtype))


def test_arrays_on_a_gpu(on_gpu):
    frames = made(PLANES)
    source = open_movie(on_gpu.put(frames))
    assert_array_equal(whole(source), frames)
    assert all(backend.is_cupy(chunk) for chunk in backend.stream(source))


def test_arrays_of_other_libraries():
    frames = made(PLANES, "float32")

    class Foreign:
        shape, dtype = frames.shape, "torch.float32"

        def __dlpack__(self, **options):
            return frames.__dlpack__(**options)

        def __dlpack_device__(self):
            return frames.__dlpack_device__()

    class Lazy:
        shape, dtype = frames.shape, frames.dtype

        def __getitem__(self, index):
            return frames[index]

    assert_array_equal(whole(open_movie(Foreign())), frames)
    assert_array_equal(whole(open_movie(Lazy())), frames)


def test_open_hdf5_data_sets_and_movies_and_sources(tmp_path):
    frames = made(PLANES)
    with h5py.File(files.hdf5(tmp_path / "a.h5", frames), "r") as file:
        source = open_movie(file["mov"])
        assert_array_equal(whole(source), frames)
        assert "a.h5:/mov" in source.name
    assert_array_equal(whole(open_movie(movie(frames, fr=5))), frames)
    assert open_movie(source) is source


def test_maps_are_read_from_their_file_and_not_through_the_map(tmp_path):
    frames = made(PLANES, "float32")
    mapped = np.load(files.npy(tmp_path / "a.npy", frames), mmap_mode="r")
    yr, dims, count = load_memmap(files.mmap(tmp_path, frames, "F"))
    turned = yr.T.reshape((count, *dims), order="F")
    for array in (mapped, mapped[5:], turned, turned[7:]):
        source = open_movie(array)
        assert isinstance(source, RawSource)
        assert_array_equal(whole(source), np.asarray(array))
    for array in (mapped[::2], mapped[:, 1:], mapped + 1):
        source = open_movie(array)
        assert not isinstance(source, RawSource)
        assert_array_equal(whole(source), np.asarray(array))


def test_what_was_changed_in_a_map_is_seen(tmp_path):
    mapped = np.load(files.npy(tmp_path / "a.npy", made(PLANES)), mmap_mode="c")
    mapped[3] = 7
    assert_array_equal(whole(open_movie(mapped)), mapped)


def test_several_files_follow_each_other(tmp_path):
    first, second, third = made(PLANES), made((4, 7, 5), "uint8", 1), made((9, 7, 5), "int16", 2)
    source = open_movie(
        [files.tiff(tmp_path / "1.tif", first), str(files.npy(tmp_path / "2.npy", second)), third]
    )
    expected = np.concatenate([first, second, third])
    assert source.dtype == expected.dtype == np.int32
    assert_array_equal(whole(source), expected)
    for part in (slice(20, 30), slice(1, None, 7), slice(24, 25), slice(22, 36, 13)):
        assert_array_equal(source.read(part), expected[part])


def test_files_of_one_dtype_keep_it(tmp_path):
    source = open_movie([made(PLANES), made(PLANES, seed=3)])
    assert source.dtype == np.uint16


def test_files_of_different_fields_are_refused(tmp_path):
    paths = [files.npy(tmp_path / "1.npy", made(PLANES)), files.npy(tmp_path / "2.npy", made((5, 7, 6)))]
    with pytest.raises(MovieShapeError, match=r"different sizes.*1\.npy has \(7, 5\).*2\.npy has \(7, 6\)"):
        open_movie(paths)
    with pytest.raises(MovieShapeError, match="empty list"):
        open_movie([])


def test_npy_matrix_of_pixels_and_time(tmp_path):
    frames = made(PLANES, "float64")
    matrix = frames.reshape(len(frames), -1, order="F").T
    for name, order in (("c.npy", "C"), ("f.npy", "F")):
        path = files.npy(tmp_path / name, np.array(matrix, order=order))
        assert_array_equal(whole(open_movie(path, shape=(7, 5))), frames)
        assert open_movie(path).shape == (1, 35, 23)
    with pytest.raises(MovieShapeError, match=r"42 pixels"):
        open_movie(path, shape=(7, 6))


def test_hdf5_data_sets_by_name(tmp_path):
    frames, other = made(PLANES), made(PLANES, seed=1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mov"], file["deep/down"], file["acquisition/TwoPhoton/data"], file["image"] = (
            frames,
            other,
            other,
            frames[0],
        )
    assert_array_equal(whole(open_movie(tmp_path / "a.h5")), frames)
    for name in ("deep/down", "TwoPhoton", "/acquisition/TwoPhoton/data"):
        assert_array_equal(whole(open_movie(tmp_path / "a.h5", var_name_hdf5=name)), other)
    assert_array_equal(whole(open_movie(tmp_path / "a.h5", var_name_hdf5="image")), frames[:1])
    alone = files.hdf5(tmp_path / "b.mat", frames, name="anything")
    assert_array_equal(whole(open_movie(alone)), frames)


# ---------------------------------------------------------------------------- TIFF


def test_imagej_stack_of_one_directory(tmp_path):
    frames = made(PLANES)
    tifffile.imwrite(tmp_path / "ij.tif", frames, imagej=True)
    assert_array_equal(whole(open_movie(tmp_path / "ij.tif")), frames)


def test_imagej_stack_beyond_4_gb_has_one_directory(tmp_path):
    """ImageJ writes one directory and then all frames; here with a file that is mostly a hole."""
    shape, path = (70_000, 256, 128), tmp_path / "huge.tif"
    description = f"ImageJ=1.53t\nimages={shape[0]}\nslices={shape[0]}\nhyperstack=false\n"
    tifffile.imwrite(
        path,
        np.zeros((1, *shape[1:]), np.uint16),
        description=description,
        metadata=None,
        photometric="minisblack",
    )
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    last = made((1, *shape[1:]))
    with path.open("r+b") as file:
        file.seek(offset + (shape[0] - 1) * shape[1] * shape[2] * 2)
        file.write(last.tobytes())
    source = open_movie(path)
    assert source.shape == shape
    assert_array_equal(source.read(slice(shape[0] - 1, None)), last)
    assert_array_equal(source.read(slice(40_000, 40_001)), np.zeros_like(last))


def test_pages_written_one_by_one_are_one_movie(tmp_path):
    frames = made(PLANES)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for frame in frames:
            writer.write(frame, photometric="minisblack")
    assert_array_equal(whole(open_movie(tmp_path / "a.tif")), frames)


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}"><Image ID="Image:0"><Pixels
ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="5" SizeY="7" SizeC="1" SizeZ="1" SizeT="6"><Channel
ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""


def test_a_series_over_several_ome_files(tmp_path):
    frames, uuids = made((6, 7, 5)), [f"urn:uuid:00000000-0000-0000-0000-00000000000{k}" for k in range(2)]
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstZ="0" FirstC="0" IFD="{t % 3}" PlaneCount="1">'
        f'<UUID FileName="{t // 3}.ome.tif">{uuids[t // 3]}</UUID></TiffData>'
        for t in range(6)
    )
    for k, uuid in enumerate(uuids):
        with tifffile.TiffWriter(tmp_path / f"{k}.ome.tif") as writer:
            for t in range(3 * k, 3 * k + 3):
                about = OME.format(uuid=uuid, planes=planes) if t % 3 == 0 else None
                writer.write(
                    frames[t], contiguous=False, metadata=None, photometric="minisblack", description=about
                )
    source = open_movie(tmp_path / "0.ome.tif")
    assert_array_equal(whole(source), frames)
    with backend.limit(chunk_frames=2):
        assert_array_equal(np.concatenate([c.copy() for c in backend.stream(source)]), frames)


def test_singleton_axes_are_dropped(tmp_path):
    frames = made((9, 1, 7, 5))
    tifffile.imwrite(
        tmp_path / "a.tif", frames[:, None], metadata={"axes": "TZCYX"}, photometric="minisblack"
    )
    assert open_movie(tmp_path / "a.tif").shape == (9, 7, 5)


def test_several_threads_read_one_file(tmp_path):
    for kind in ("zlib tif", "pages tif", "chunked hdf5", "mmap C"):
        frames = made((60, 7, 5))
        source = open_movie(files.WRITERS[kind](tmp_path, frames))
        wrong = []

        def check(first, source=source, frames=frames, wrong=wrong):
            for at in range(first, 50):
                if not np.array_equal(source.read(slice(at, at + 7)), frames[at : at + 7]):
                    wrong.append(at)

        threads = [threading.Thread(target=check, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, kind


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 3, 4, 5, 6)])
def test_wrong_number_of_axes(tmp_path, shape):
    with pytest.raises(MovieShapeError, match=rf"{len(shape)} axes.*\(T, d1, d2\)"):
        open_movie(np.zeros(shape))
    with pytest.raises(MovieShapeError, match=r"a\.h5:/mov has"):
        open_movie(files.hdf5(tmp_path / "a.h5", np.zeros((2,) * 5)))


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 3, 0)])
def test_empty_movies(tmp_path, shape):
    for given_movie in (
        np.zeros(shape),
        files.npy(tmp_path / "a.npy", np.zeros(shape)),
        files.hdf5(tmp_path / "a.h5", np.zeros(shape)),
    ):
        with pytest.raises(MovieShapeError, match="is empty"):
            open_movie(given_movie)


def test_values_that_are_no_real_numbers():
    for values in (np.zeros((2, 2, 2), complex), np.full((2, 2, 2), "a"), np.zeros((2, 2, 2), object)):
        with pytest.raises(ArrayTypeError, match="real numbers"):
            open_movie(values)


@pytest.mark.parametrize("thing", [None, 5, {"a": 1}, b"film.tif"])
def test_things_that_are_no_movies(thing):
    with pytest.raises(ArrayTypeError, match="is no movie"):
        open_movie(thing)


def test_reading_backwards_or_into_the_wrong_memory_is_refused():
    source = open_movie(made(PLANES))
    with pytest.raises(ParameterError, match="forwards"):
        source.read(slice(None, None, -1))
    with pytest.raises(ArrayShapeError, match=r"\(23, 7, 5\) uint16"):
        source.read(slice(None), np.zeros((3, 7, 5), np.uint16))
    with pytest.raises(ArrayShapeError, match="C order"):
        source.read(slice(0, 3), np.zeros((3, 7, 5), np.uint16, order="F"))
