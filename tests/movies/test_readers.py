"""Readers of video, Zarr, N5, Scanbox and suite2p files: what plain indexing gives, and clear errors."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import threading
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.errors import (
    DatasetNotFoundError,
    GpuCalciumError,
    MissingExtraError,
    MovieFileError,
    MovieShapeError,
    ParameterError,
    UnknownFormatError,
)
from gpucalcium.movies import get_file_size, load, load_iter, movie, open_movie
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 250, (41, 18, 14)).astype(np.uint8)
VOLUMES = np.random.default_rng(1).integers(0, 4000, (6, 7, 5, 3)).astype(np.uint16)


def video(path: Path, frames=FRAMES, codec="ffv1", pixels="gray", fr=20, **options) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fr, options=options)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels
        kind = "gray16le" if frames.dtype == np.uint16 else "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=kind)))
        container.mux(stream.encode())
    return path


def zarred(path: Path, frames=FRAMES, name=None, version=2, **options) -> Path:
    zarr = pytest.importorskip("zarr")
    if name is None:
        array = zarr.create_array(
            path, shape=frames.shape, dtype=frames.dtype, zarr_format=version, **options
        )
    else:
        group = zarr.open_group(path, mode="a", zarr_format=version)
        array = group.create_array(name, shape=frames.shape, dtype=frames.dtype, **options)
    array[:] = frames
    array.attrs.update({"fr": 7.5, "meta_data": json.dumps([{"a": 1}])})
    return path


def n5(path: Path, frames=FRAMES, blocks=(8, 5, 6), codec="raw", name="") -> Path:
    """As the format's description says: axes reversed, big-endian, edge blocks cut off."""
    folder = path / name
    folder.mkdir(parents=True)
    pack = gzip.compress if codec == "gzip" else bytes
    about = {
        "dimensions": frames.shape[::-1],
        "blockSize": blocks[::-1],
        "dataType": str(frames.dtype),
        "compression": {"type": codec},
    }
    (folder / "attributes.json").write_text(json.dumps(about))
    counts = [-(-n // b) for n, b in zip(frames.shape, blocks, strict=True)]
    for place in product(*map(range, counts)):
        block = frames[tuple(slice(k * b, (k + 1) * b) for k, b in zip(place, blocks, strict=True))]
        file = folder.joinpath(*map(str, place[::-1]))
        file.parent.mkdir(parents=True, exist_ok=True)
        head = struct.pack(f">HH{block.ndim}I", 0, block.ndim, *block.shape[::-1])
        file.write_bytes(head + pack(block.astype(block.dtype.newbyteorder(">")).tobytes()))
    return path


def sbx(path: Path, samples: np.ndarray, **info) -> Path:
    """Scanbox: `samples` (frame, plane, row, column, channel) of what was seen; stored inverted."""
    (65535 - samples).astype("<u2").tofile(path)
    about = {"scanbox_version": 2, "sz": samples.shape[2:4], "resfreq": 7930.0, "scanmode": 1} | info
    scipy.io.savemat(path.with_suffix(".mat"), {"info": {k: v for k, v in about.items() if v is not None}})
    return path


def suite2p(folder: Path, frames=FRAMES) -> Path:
    frames.astype("<i2").tofile(folder / "data.bin")
    (folder / "ops.json").write_text(
        json.dumps({"Ly": frames.shape[1], "Lx": frames.shape[2], "nframes": len(frames), "fs": 11})
    )
    return folder / "data.bin"


def matlab73(path: Path, frames=FRAMES) -> Path:
    """As MATLAB writes (rows, columns, time): reversed in HDF5, and marked."""
    with h5py.File(path, "w") as file:
        file["Y"] = frames.transpose(0, *range(frames.ndim - 1, 0, -1))
        file["Y"].attrs["MATLAB_class"] = np.bytes_(str(frames.dtype))
    return path


def nwb(path: Path, frames=FRAMES, where="acquisition/TwoPhotonSeries") -> Path:
    with h5py.File(path, "w") as file:
        file[f"{where}/data"] = frames
        file[f"{where}/starting_time"] = 2.5
        file[f"{where}/starting_time"].attrs["rate"] = 15.0
        file["identifier"] = "x"
    return path


WRITERS = {
    "ffv1 avi": lambda folder: video(folder / "a.avi"),
    "raw avi": lambda folder: video(folder / "r.avi", codec="rawvideo"),
    "ffv1 mkv": lambda folder: video(folder / "a.mkv"),
    "ffv1 mkv, deep": lambda folder: video(
        folder / "d.mkv", FRAMES.astype(np.uint16) * 250, pixels="gray16le"
    ),
    "lossless mp4": lambda folder: video(folder / "a.mp4", codec="libx264", pixels="yuvj420p", qp="0"),
    "lossless avi, frames out of order": lambda folder: video(
        folder / "b.avi", codec="libx264", pixels="yuvj420p", qp="0", bf="2"
    ),
    "zarr 2": lambda folder: zarred(folder / "a.zarr", chunks=(8, 5, 6)),
    "zarr 3": lambda folder: zarred(folder / "b.zarr", version=3, chunks=(8, 5, 6)),
    "zarr group": lambda folder: zarred(folder / "c.zarr", name="mov", chunks=(41, 18, 14)),
    "n5": lambda folder: n5(folder / "a.n5"),
    "gzip n5": lambda folder: n5(folder / "b.n5", codec="gzip", name="mov"),
    "sbx": lambda folder: sbx(folder / "a.sbx", FRAMES[:, None, :, :, None].astype(np.uint16)),
    "suite2p": suite2p,
    "mat 7.3": lambda folder: matlab73(folder / "a.mat"),
    "nwb": lambda folder: nwb(folder / "a.nwb"),
}
OPTIONS = {"nwb": {"var_name_hdf5": "TwoPhotonSeries"}}
SELECTIONS = [
    slice(3, 9),
    slice(None, None, 7),
    slice(30, None, 3),
    slice(None, None, -5),
    range(4, 9),
    [5, 39, 1, 1],
    np.arange(41) % 9 == 0,
    (slice(3, 30, 4), slice(1, None), slice(2, 9, 3)),
    ([7, 3], [0, 6], slice(1, 2)),
]


@pytest.fixture(scope="module", params=WRITERS)
def kept(request, tmp_path_factory):
    """A file of each kind, the options to read it, and what it holds."""
    path = WRITERS[request.param](tmp_path_factory.mktemp("kept"))
    factor = 250 if "deep" in request.param else 1
    return path, OPTIONS.get(request.param, {}), FRAMES.astype(np.uint16) * factor


def test_all_frames(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    assert source.shape == frames.shape
    assert source.dtype.isnative
    assert_array_equal(source.read(slice(None)), frames)
    assert_array_equal(load(path, **options), frames)
    assert get_file_size(path, **options) == (frames.shape[1:], len(frames))


@pytest.mark.parametrize("subindices", SELECTIONS, ids=str)
def test_part_equals_indexing(kept, subindices):
    path, options, frames = kept
    expected = frames
    for axis, selector in enumerate(subindices if isinstance(subindices, tuple) else (subindices,)):
        index = list(selector) if isinstance(selector, range) else selector
        expected = expected[(slice(None),) * axis + (index,)]
    assert_array_equal(load(path, subindices=subindices, **options), expected)
    assert_array_equal(list(load_iter(path, subindices, **options)), expected)


def test_any_order_of_reading(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    random = np.random.default_rng(3)
    for _ in range(30):
        start, step = int(random.integers(0, 40)), int(random.integers(1, 6))
        part = slice(start, start + int(random.integers(0, 20)), step)
        assert_array_equal(source.read(part), frames[part])


def test_several_threads_at_once(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    wrong = []

    def read(start):
        for k in range(4):
            part = slice((start + 10 * k) % 40, None, 1 + start % 3)
            if not np.array_equal(source.read(part), frames[part]):
                wrong.append(part)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.97, 0.999])
@pytest.mark.parametrize("kind", [k for k in WRITERS if not k.startswith(("zarr", "n5", "gzip"))])
def test_truncated_files(tmp_path, kind, share):
    path = WRITERS[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    try:
        frames = open_movie(path, **OPTIONS.get(kind, {})).read(slice(None))
    except GpuCalciumError as err:
        assert isinstance(err, MovieFileError)
        assert path.name in str(err)
    else:  # nothing but what comes after the frames was lost
        assert_array_equal(frames, FRAMES.astype(np.uint16) * (250 if "deep" in kind else 1))


@pytest.mark.parametrize(
    "kind", [k for k in WRITERS if not k.startswith(("zarr", "n5", "gzip", "sbx", "suite"))]
)
def test_noise_instead_of_a_file(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    path.write_bytes(np.random.default_rng(1).bytes(50_000))
    with pytest.raises(MovieFileError, match=path.name):
        open_movie(path).read(slice(None))


# --- video ---


def test_lossy_and_coloured_videos(tmp_path):
    smooth = np.linspace(20, 230, 41 * 16 * 32).reshape(41, 16, 32).astype(np.uint8)
    for codec, pixels in (("rawvideo", "yuv420p"), ("rawvideo", "bgr24"), ("mjpeg", "yuvj420p")):
        path = video(tmp_path / f"{codec}{pixels}.avi", smooth, codec=codec, pixels=pixels)
        assert_allclose(
            open_movie(path).read(slice(None)), smooth.astype(int), atol=4 if codec == "mjpeg" else 1
        )


def test_first_colour_of_a_picture(tmp_path):
    av = pytest.importorskip("av")
    colours = np.random.default_rng(2).integers(0, 255, (3, 8, 16, 3)).astype(np.uint8)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.height, stream.width, stream.pix_fmt = 8, 16, "bgr24"
        for picture in colours:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert_array_equal(open_movie(tmp_path / "a.avi").read(slice(None)), colours[..., 0])


def _with_count(path, count):
    """The same AVI file with another number of frames in its headers."""
    content = bytearray(path.read_bytes())
    main, stream = content.index(b"avih"), content.index(b"strh")
    content[main + 8 + 16 : main + 8 + 20] = struct.pack("<I", count)
    content[stream + 8 + 32 : stream + 8 + 36] = struct.pack("<I", count)
    path.write_bytes(content)


@pytest.mark.parametrize("codec", ["ffv1", "rawvideo"])
def test_headers_that_lie(tmp_path, codec):
    path = video(tmp_path / "a.avi", codec=codec)
    for count in (0, 5, 40):
        _with_count(path, count)
        assert_array_equal(open_movie(path).read(slice(None)), FRAMES)
        assert_array_equal(open_movie(path).read(slice(35, 38)), FRAMES[35:38])
    _with_count(path, 10**9)
    with pytest.raises(MovieFileError, match=r"promises 1000000000 frames, 41 are there"):
        open_movie(path)


def test_a_frame_that_cannot_be_decoded_is_named_and_the_rest_read(tmp_path):
    path = video(tmp_path / "a.avi", g="1")
    source = open_movie(path)
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux() if packet.size][13]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    source = open_movie(path)
    with pytest.raises(MovieFileError, match=r"a\.avi: frame 13 of 41 cannot be decoded"):
        source.read(slice(None))
    assert_array_equal(source.read(slice(0, 13)), FRAMES[:13])
    assert_array_equal(source.read(slice(14, None)), FRAMES[14:])


def test_the_damaged_miniscope_recording(shared):
    path = shared / "data" / "real" / "movies" / "miniscope_corrupted.avi"
    source = open_movie(path)  # every frame has 20,000 bytes more than its header says
    assert (source.shape, source.dtype) == ((60, 200, 200), np.uint8)
    assert load(path, subindices=slice(0, 2)).fr == 20
    content = path.read_bytes()
    at, expected = content.index(b"movi") + 4, []
    while content[at : at + 4] == b"00dc":
        (size,) = struct.unpack("<I", content[at + 4 : at + 8])
        expected.append(np.frombuffer(content, np.uint8, 40_000, at + 8).reshape(200, 200))
        at += 8 + size
    assert_array_equal(source.read(slice(None)), expected)


@pytest.mark.parametrize(("module", "suffix", "extra"), [("av", ".avi", "video"), ("zarr", ".zarr", "zarr")])
def test_missing_packages_name_the_extra(tmp_path, monkeypatch, module, suffix, extra):
    path = tmp_path / f"a{suffix}"
    path.mkdir() if suffix == ".zarr" else path.write_bytes(b"1234")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"gpucalcium\[{extra}\]"):
        open_movie(path)


# --- attributes and names ---


def test_what_files_say_of_the_recording(tmp_path):
    rates = {
        WRITERS["ffv1 avi"](tmp_path): 20,
        WRITERS["zarr 2"](tmp_path): 7.5,
        WRITERS["suite2p"](tmp_path): 11,
        WRITERS["sbx"](tmp_path): 7930 / 18,
        WRITERS["nwb"](tmp_path): 15,
        files.npz(tmp_path / "a.npz", FRAMES, fr=12.0, start_time=3.0, meta_data=json.dumps({"a": 1})): 12,
        files.mat(tmp_path / "b.mat", FRAMES, fr=12.0, start_time=3.0, meta_data=json.dumps({"a": 1})): 12,
    }
    for path, rate in rates.items():
        loaded = load(path, subindices=slice(2))
        assert loaded.fr == pytest.approx(rate), path.name
        assert load(path, fr=99, subindices=slice(2)).fr == 99
        if path.suffix in (".npz", ".mat"):
            assert (loaded.start_time, loaded.meta_data) == (3.0, [{"a": 1}])
    assert load(tmp_path / "a.nwb").start_time == 2.5


def test_pickled_attributes_are_left_alone(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, input_arr=FRAMES, fr=5.0, meta_data=np.array([{"a": 1}], object))
    assert load(path).fr == 5
    assert load(path).meta_data == [None]
    with pytest.raises(MovieFileError, match="never unpickled"):
        open_movie(path, var_name_hdf5="meta_data")


@pytest.mark.parametrize("suffix", ["npz", "mat", "zarr", "n5"])
def test_names_of_arrays(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, one=FRAMES, two=FRAMES[:5])
    elif suffix == "mat":
        scipy.io.savemat(path, {n: np.moveaxis(m, 0, -1) for n, m in (("one", FRAMES), ("two", FRAMES[:5]))})
    else:
        for name, frames in (("one", FRAMES), ("two", FRAMES[:5])):
            (zarred if suffix == "zarr" else n5)(path, frames, name=name)
    assert_array_equal(load(path, var_name_hdf5="two"), FRAMES[:5])
    with pytest.raises(DatasetNotFoundError, match=r"'mov'.*one, two.*var_name_hdf5"):
        open_movie(path)


@pytest.mark.parametrize("suffix", ["npz", "mat", "zarr", "n5"])
def test_images_and_volumes(tmp_path, suffix):
    write = {
        "npz": files.npz,
        "mat": files.mat,
        "zarr": zarred,
        "n5": lambda path, m: n5(path, m, blocks=(4, 3, 2, 2)[: m.ndim]),
    }[suffix]
    assert_array_equal(load(write(tmp_path / f"v.{suffix}", VOLUMES)), VOLUMES)
    if suffix == "mat":
        scipy.io.savemat(tmp_path / "i.mat", {"image": FRAMES[0]})
    else:
        write(tmp_path / f"i.{suffix}", FRAMES[0])
    assert_array_equal(load(tmp_path / f"i.{suffix}"), FRAMES[:1])


def test_matlab_images_of_both_versions(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["Y"] = FRAMES[0].T
        file["Y"].attrs["MATLAB_class"] = np.bytes_("uint8")
    assert_array_equal(load(tmp_path / "a.mat"), FRAMES[:1])
    assert_array_equal(load(matlab73(tmp_path / "v.mat", VOLUMES)), VOLUMES)


@pytest.mark.parametrize("wrong", [1j * np.ones((3, 4, 5)), "text", {"a": 1}])
def test_mat_variables_that_are_no_movies(tmp_path, wrong):
    scipy.io.savemat(tmp_path / "a.mat", {"x": wrong})
    with pytest.raises(MovieFileError, match=r"a\.mat:x is no array of real numbers"):
        open_movie(tmp_path / "a.mat")


def test_big_fortran_arrays_in_archives_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", input_arr=np.asfortranarray(FRAMES))
    with pytest.raises(MovieFileError, match=r"Fortran order.*ascontiguousarray"):
        open_movie(tmp_path / "a.npz")
    image = np.asfortranarray(FRAMES[0])
    np.savez(tmp_path / "b.npz", image)
    assert_array_equal(load(tmp_path / "b.npz"), FRAMES[:1])


# --- damage in folders ---


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "gzip n5"])
def test_damaged_blocks_are_named(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    blocks = [
        f for f in path.rglob("*") if f.is_file() and f.suffix != ".json" and not f.name.startswith(".z")
    ]
    for block in blocks:
        block.write_bytes(block.read_bytes()[: block.stat().st_size // 2])
    with pytest.raises(MovieFileError, match=rf"{path.name}.*of 41.*cannot be read"):
        open_movie(path).read(slice(None))


@pytest.mark.parametrize("suffix", ["zarr", "n5"])
def test_folders_without_or_with_wrong_descriptions(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.mkdir()
    with pytest.raises((MovieFileError, DatasetNotFoundError), match=f"a.{suffix}"):
        open_movie(path)
    (path / ("zarr.json" if suffix == "zarr" else "attributes.json")).write_text("{")
    with pytest.raises(MovieFileError, match=f"a.{suffix}"):
        open_movie(path)
    (tmp_path / f"b.{suffix}").write_bytes(b"1234")
    with pytest.raises(MovieFileError, match="folder was expected"):
        open_movie(tmp_path / f"b.{suffix}")


def test_n5_that_promises_too_much(tmp_path):
    path = n5(tmp_path / "a.n5")
    (path / "0/0/0").write_bytes(struct.pack(">HH3I", 0, 3, 10**9, 10**9, 10**9))
    with pytest.raises(MovieFileError, match="more than a block"):
        open_movie(path).read(slice(0, 1))
    about = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(about | {"compression": {"type": "blosc"}}))
    with pytest.raises(UnknownFormatError, match=r"'blosc'.*gzip"):
        open_movie(path)
    (path / "attributes.json").write_text(json.dumps(about | {"blockSize": [0, 1, 1]}))
    with pytest.raises(MovieFileError, match="no description"):
        open_movie(path)


# --- Scanbox ---

SAMPLES = np.random.default_rng(4).integers(0, 65536, (7, 3, 9, 8, 2)).astype(np.uint16)


@pytest.mark.parametrize("version", [2, 3, None])
@pytest.mark.parametrize("channel", [0, 1, -1])
def test_scanbox_channels_and_planes(tmp_path, version, channel):
    path = sbx(
        tmp_path / "a.sbx", SAMPLES, scanbox_version=version, channels=1, volscan=1, otparam=[0, 100, 3]
    )
    expected = np.moveaxis(SAMPLES[..., channel], 1, -1)
    assert_array_equal(load(path, channel=channel, outtype=np.uint16), expected)
    assert_array_equal(
        load(path, channel=channel, subindices=(slice(1, 6, 2), [3, 1])), expected[1:6:2][:, [3, 1]]
    )
    assert get_file_size(path, channel=0) == ((9, 8, 3), 7)
    assert load(path, channel=0).fr == pytest.approx(7930 / 9 / 3)
    with pytest.raises(ParameterError, match=r"has 2 channels.*channel=0"):
        open_movie(path)
    with pytest.raises(ParameterError, match="channel=2"):
        open_movie(path, channel=2)


def test_scanbox_defaults(tmp_path):
    one = SAMPLES[:, :1, :, :, :1]
    for name, info in {
        "chan": {"chan": {"nchan": 1}, "channels": 1},
        "two": {"channels": 2},
        "none": {},
    }.items():
        assert_array_equal(load(sbx(tmp_path / f"{name}.sbx", one, **info)), one[:, 0, :, :, 0])
    both_ways = sbx(tmp_path / "b.sbx", one, scanmode=0)
    assert load(both_ways).fr == pytest.approx(2 * 7930 / 9)
    whole_field = sbx(tmp_path / "f.sbx", np.zeros((2, 1, 512, 796, 1), np.uint16), sz=None)
    assert open_movie(whole_field).shape == (2, 512, 796)


def test_scanbox_files_that_do_not_fit(tmp_path, caplog):
    one = SAMPLES[:, :1, :, :, :1]
    path = sbx(tmp_path / "a.sbx", one, max_idx=8)
    with pytest.raises(MovieFileError, match=r"a\.sbx is truncated.*7\.00 planes of 9 x 8.*9 were expected"):
        open_movie(path)
    sbx(path, one, scanbox_version=4)
    with pytest.raises(MovieFileError, match="scanbox_version is 4"):
        open_movie(path)
    sbx(path, one, sz=[10**6, 10**6])
    with pytest.raises(MovieFileError, match=r"truncated.*0\.00 planes"):
        open_movie(path)
    sbx(path, one, volscan=1, otparam=[0, 100, 4])
    assert_array_equal(load(path)[0, ..., 3], one[3, 0, :, :, 0])
    assert "the last 3 planes make no whole volume" in caplog.text
    path.with_suffix(".mat").write_bytes(b"no such thing")
    with pytest.raises(MovieFileError, match=r"a\.mat, which describes a\.sbx"):
        open_movie(path)
    path.with_suffix(".mat").unlink()
    with pytest.raises(MovieFileError, match=r"expected in .*a\.mat"):
        open_movie(path)


# --- suite2p ---


def test_suite2p_sizes_from_argument_or_sidecar(tmp_path):
    path = suite2p(tmp_path)
    assert_array_equal(load(path, shape=(18, 14)), FRAMES)
    (tmp_path / "ops.json").unlink()
    np.savez(tmp_path / "ops.npz", Ly=18, Lx=14)
    assert_array_equal(load(path), FRAMES)
    np.savez(tmp_path / "ops.npz", Ly=18, Lx=14, nframes=50)
    with pytest.raises(MovieFileError, match=r"data\.bin.*41\.00 frames.*50 expected"):
        open_movie(path)
    (tmp_path / "ops.npz").unlink()
    np.save(tmp_path / "ops.npy", np.array({"Ly": 18}), allow_pickle=True)
    with pytest.raises(MovieFileError, match=r"shape=\(Ly, Lx\).*ops\.npy is a pickle"):
        open_movie(path)
    for text in ("{", '{"Ly": 18}', "[1]"):
        (tmp_path / "ops.json").write_text(text)
        with pytest.raises(MovieFileError, match=r"ops\.json|Ly and Lx"):
            open_movie(path)
    with pytest.raises(MovieFileError, match="truncated, or its frames are not"):
        open_movie(path, shape=(10**6, 10**6))
    with pytest.raises(ParameterError, match="one row"):
        open_movie(path, shape=(0, 5))


# --- channels ---


def test_channels_of_any_movie():
    two = np.arange(5 * 2 * 4 * 3).reshape(5, 2, 4, 3)
    assert_array_equal(open_movie(two, channel=1).read(slice(None)), two[:, 1])
    assert_array_equal(open_movie([two, two], channel=0).read(slice(None)), np.concatenate([two, two])[:, 0])
    assert_array_equal(open_movie(two, channel=0, subindices=[3]).read(slice(None)), two[3:4, 0])
    with pytest.raises(ParameterError, match="has no channels"):
        open_movie(two[:, 0], channel=0)


def test_a_channel_keeps_what_the_file_says(tmp_path):
    path = files.npz(tmp_path / "a.npz", VOLUMES, fr=12.0)
    assert load(path, channel=1).fr == 12
    assert_array_equal(load(path, channel=1), VOLUMES[:, 1])


FIVE_AXES = np.random.default_rng(5).integers(0, 999, (5, 3, 2, 8, 6)).astype(np.uint16)
CHANNELLED = {
    "ImageJ": {"data": FIVE_AXES, "imagej": True, "axes": "TZCYX"},
    "OME": {"data": FIVE_AXES, "ome": True, "axes": "TZCYX"},
    "OME, channels first": {"data": np.moveaxis(FIVE_AXES, 2, 1), "ome": True, "axes": "TCZYX"},
    "compressed": {"data": FIVE_AXES, "compression": "zlib", "axes": "TZCYX"},
    "images": {"data": FIVE_AXES[:, 0], "imagej": True, "axes": "TCYX"},
    "one volume": {"data": FIVE_AXES[:1], "imagej": True, "axes": "TZCYX"},
}


@pytest.mark.parametrize("kind", CHANNELLED)
@pytest.mark.parametrize("channel", [0, 1, -2])
def test_channels_of_tiff_files(tmp_path, kind, channel):
    options = dict(CHANNELLED[kind])
    data, axes = options.pop("data"), options.pop("axes")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(data), metadata={"axes": axes}, **options)
    expected = data.take(channel, axis=axes.index("C"))
    expected = expected[0] if kind == "one volume" else expected  # an axis of length 1 is dropped
    source = open_movie(path, channel=channel)
    assert source.shape == expected.shape
    assert_array_equal(source.read(slice(None)), expected)
    assert_array_equal(load(path, channel=channel, subindices=slice(1, None, 2)), expected[1::2])
    with pytest.raises(ParameterError, match="channel=7"):
        open_movie(path, channel=7)
    if data.ndim == 5 and kind != "one volume":
        with pytest.raises(MovieShapeError, match=r"5 axes.*channel="):
            open_movie(path)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "npz", "mat", "zarr", "h5", "tif"])
def test_what_is_saved_comes_back(tmp_path, suffix):
    path = movie(FRAMES, fr=12.5, start_time=2, meta_data={"a": 1}).save(
        tmp_path / f"a.{suffix}", q_min=None, q_max=None
    )
    back = load(path)
    assert_allclose(back, FRAMES, atol=1 if suffix in ("avi", "mkv") else 0)
    assert (back.fr, back.start_time, back.meta_data) == (12.5, 2, [{"a": 1}])


def test_empty_movies_are_refused(tmp_path):
    with pytest.raises(MovieShapeError, match="is empty"):
        open_movie(files.npz(tmp_path / "a.npz", FRAMES[:0]))


@pytest.mark.parametrize("step", [1, 3, 11])
def test_no_chunk_is_read_twice(monkeypatch, step):
    """A chunk of a store is decoded whole each time a piece of it is asked for."""
    monkeypatch.setattr("gpucalcium.movies.arrays.PIECE", 20 * FRAMES[0].nbytes)
    asked = []

    class Store:
        shape, dtype, chunks = FRAMES.shape, FRAMES.dtype, (8, 18, 14)

        def __getitem__(self, key):
            found = range(len(FRAMES))[key]
            asked.extend({frame // 8 for frame in found})
            return FRAMES[key]

    assert_array_equal(open_movie(Store()).read(slice(3, None, step)), FRAMES[3::step])
    assert sorted(asked) == sorted({frame // 8 for frame in range(3, 41, step)})
