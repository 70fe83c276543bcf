"""Saving: what other programs find in the files, what each option does, and that nothing is left half-written."""

import json
import logging
import os
import resource
import warnings
from contextlib import contextmanager

import av
import h5py
import numpy as np
import pynwb
import pytest
import scipy.io
import tifffile
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    MemoryBudgetError,
    MissingExtraError,
    OutputError,
    ParameterError,
    UnknownFormatError,
)
from gpucalcium.movies import load, movie, open_movie, timeseries
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.save_options import Recording, SaveOptions
from gpucalcium.movies.writers import FORMATS, write
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 4000, (23, 7, 5)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).normal(100, 10, (6, 3, 7, 5)).astype(np.float32)
META = {"depth_um": 120, "who": ["a", "ä"]}
WRITTEN = [*FORMATS, ".mmap"]


def example(frames=FRAMES, **changes):
    return movie(frames, **{"fr": 7.5, "start_time": 2, "meta_data": META, "file_name": "raw.tif"} | changes)


def tiff(path):
    with tifffile.TiffFile(path) as file:
        return file.asarray(), file.shaped_metadata[0]


def npz(path):
    with np.load(path) as file:
        return file["input_arr"], {name: file[name].item() for name in file.files if name != "input_arr"}


def mat(path):
    found = scipy.io.loadmat(path, squeeze_me=False)
    about = {name: found[name].item() for name in ("fr", "start_time", "meta_data", "file_name")}
    return np.moveaxis(found["input_arr"], -1, 0), about


def hdf5(path):
    with h5py.File(path) as file:
        return file["mov"][()], dict(file["mov"].attrs)


def group(path):
    data = zarr.open_group(path, mode="r")["mov"]
    return data[...], dict(data.attrs)


def nwb(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(str(path), "r") as file:
            series = file.read().acquisition["TwoPhotonSeries"]
            return series.data[()], json.loads(series.comments)


def video(path):
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
        tags = {name.lower(): text for name, text in file.metadata.items()}
        return np.stack(frames), json.loads(tags["comment"])


READERS = {".tif": tiff, ".tiff": tiff, ".btf": tiff, ".npz": npz, ".mat": mat, ".h5": hdf5, ".hdf5": hdf5}
READERS |= {".nwb": nwb, ".zarr": group}


# ---------------------------------------------------------------------------- what is in the files


@pytest.mark.parametrize("compress", [0, 4])
@pytest.mark.parametrize("frames", [FRAMES, VOLUMES, FRAMES[:1]], ids=["2-D", "3-D", "T=1"])
@pytest.mark.parametrize("suffix", READERS)
def test_other_programs_find_the_movie(tmp_path, suffix, frames, compress):
    name = example(frames).save(tmp_path / f"film{suffix}", to32=False, compress=compress)
    assert files.names(tmp_path) == [f"film{suffix}"]
    values, about = READERS[suffix](name)
    assert_array_equal(values.reshape(frames.shape), frames)
    assert values.dtype == frames.dtype
    assert (about["fr"], about["start_time"]) == (7.5, 2.0)
    assert json.loads(about["meta_data"]) == [META]
    assert json.loads(about["file_name"]) == ["raw.tif"]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float64", "bool", "float16", ">i2"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5", ".zarr", ".tif"])
def test_values_and_dtypes_are_kept(tmp_path, suffix, dtype):
    frames = (FRAMES % 100).astype(dtype)
    name = example(frames).save(tmp_path / f"film{suffix}", to32=False)
    values = np.load(name) if suffix == ".npy" else READERS[suffix](name)[0]
    assert_array_equal(values, frames)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".zarr", ".tif", ".mat"])
@pytest.mark.parametrize("chunk", [1, 5])
def test_chunk_size_changes_nothing(tmp_path, suffix, chunk):
    with backend.limit(chunk_frames=chunk):
        name = example().save(tmp_path / f"film{suffix}", to32=False, compress=1)
    values = np.load(name) if suffix == ".npy" else READERS[suffix](name)[0]
    assert_array_equal(values, FRAMES)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".mat", ".zarr"])
def test_series_need_not_be_movies(tmp_path, suffix):
    for number, values in enumerate((FRAMES[:, 0, 0], FRAMES[:, 0])):
        name = timeseries(values, fr=3).save(tmp_path / f"{number}{suffix}")
        back = np.load(name) if suffix == ".npy" else READERS[suffix](name)[0]
        assert_array_equal(back.reshape(values.shape), values)


def test_metadata_may_be_long(tmp_path):
    about = {"text": "x" * 200_000, "path": tmp_path}
    for suffix in (".h5", ".npz", ".tif"):
        found = READERS[suffix](example(meta_data=about).save(tmp_path / f"a{suffix}"))[1]
        assert json.loads(found["meta_data"])[0]["text"] == about["text"]


# ---------------------------------------------------------------------------- video


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("shape", [(9, 32, 40), (9, 11, 7), (1, 5, 6)])
def test_video_is_within_a_grey_level(tmp_path, suffix, shape):
    frames = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    m = example(frames)
    back, about = video(m.save(tmp_path / f"a{suffix}", q_max=None))
    assert np.abs(back.astype(int) - frames).max() <= 1
    assert about["fr"] == 7.5
    back, _ = video(m.save(tmp_path / f"b{suffix}", q_min=None, compress=1))
    assert_array_equal(back, frames)
    with av.open(str(tmp_path / f"a{suffix}")) as file:
        assert file.streams.video[0].average_rate == 7.5
        assert file.streams.video[0].codec_context.name == "rawvideo"


def test_grey_levels_are_percentiles(tmp_path):
    frames = np.random.default_rng(3).normal(500, 60, (250, 12, 14)).astype(np.float32)
    frames[:, 0, 0] = np.nan
    back, _ = video(example(frames).save(tmp_path / "a.mkv", q_min=10, q_max=90, compress=1))
    black, white = np.nanpercentile(frames[::2], [10, 90])
    expected = np.clip(255 * (frames - black) / (white - black), 0, 255)
    assert (back[:, 0, 0] == 0).all()
    assert_allclose(back[:, 1:], expected[:, 1:], atol=0.51)
    for wrong in ({"q_min": 99.9}, {"q_max": 101}, {"q_min": -1}):
        with pytest.raises(ParameterError, match="percentiles"):
            example(frames).save(tmp_path / "b.avi", **wrong)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_video_of_a_constant_movie(tmp_path, value):
    constant = np.full((3, 8, 8), value, np.float32)
    back, _ = video(example(constant).save(tmp_path / "a.avi", compress=1))
    assert back.shape == (3, 8, 8)
    assert (back == 0).all()


def test_video_shows_images(tmp_path):
    with pytest.raises(ParameterError, match="planes one by one"):
        example(VOLUMES).save(tmp_path / "a.avi")
    assert files.names(tmp_path) == []


# ---------------------------------------------------------------------------- NWB


def test_every_nwb_parameter_is_stored(tmp_path):
    session = {
        "sess_desc": "session_description",
        "identifier": "identifier",
        "lab_name": "lab",
        "institution": "institution",
        "experiment_description": "experiment_description",
        "session_id": "session_id",
    }
    plane = {"imaging_plane_description": "description", "indicator": "indicator", "location": "location"}
    texts = {name: f"my {name}" for name in (*session, *plane)}
    numbers = {"excitation_lambda": 920.0, "emission_lambda": 510.0, "starting_time": 1.5}
    name = example().save(
        tmp_path / "a.nwb", **texts, **numbers, experimenter="me", unit="photons", var_name_hdf5="film"
    )
    with pynwb.NWBHDF5IO(str(name), "r") as file:
        found = file.read()
        series = found.acquisition["film"]
        for parameter, attribute in session.items():
            assert getattr(found, attribute) == texts[parameter]
        for parameter, attribute in plane.items():
            assert getattr(series.imaging_plane, attribute) == texts[parameter]
        assert found.experimenter == ("me",)
        assert series.imaging_plane.excitation_lambda == 920
        assert series.imaging_plane.optical_channel[0].emission_lambda == 510
        assert (series.starting_time, series.rate, series.unit) == (1.5, 7.5, "photons")
        assert found.session_start_time.timestamp() == 2
    assert pynwb.validate(path=name) in ([], None)
    with pytest.raises(ParameterError, match="TwoPhotonSeries"):
        timeseries(FRAMES[0], fr=3).save(tmp_path / "b.nwb")


# ---------------------------------------------------------------------------- what cannot be done


def test_options_without_a_meaning_are_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "gpucalcium"):
        example().save(tmp_path / "a.npy", compress=3, q_max=50)
        example().save(tmp_path / "a.h5", compress=3)
    assert [record.message for record in caplog.records] == [
        ".npy files have no place for compress, q_max: without effect"
    ]


def test_wrong_options(tmp_path):
    for wrong in ({"compress": 11}, {"var_name_hdf5": "/"}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            example().save(tmp_path / "a.h5", **wrong)
    with pytest.raises(UnknownFormatError, match=r"Extension Unknown.*\.nwb"):
        example().save(tmp_path / "a.sbx")
    assert files.names(tmp_path) == []


class Endless:
    """A movie of any length that takes no memory."""

    name, dtype = "endless", np.dtype(np.uint16)

    def __init__(self, *shape):
        self.shape = shape

    def __len__(self):
        return self.shape[0]

    def read(self, frames, out=None):
        n = len(range(len(self))[frames])
        out = np.empty((n, *self.shape[1:]), self.dtype) if out is None else out
        out[...] = np.arange(out.size, dtype=np.uint64).reshape(out.shape) * 2654435761 >> 7 & 0xFFFF
        return out


def test_formats_have_their_limits(tmp_path):
    huge = Endless(70_000, 512, 512)
    with pytest.raises(ParameterError, match=r"less than 4 GiB.*\.h5"):
        write(huge, tmp_path / "a.mat", Recording(), SaveOptions())
    with pytest.raises(ParameterError, match="bigtiff=False"):
        write(huge, tmp_path / "a.tif", Recording(), SaveOptions(bigtiff=False))
    with backend.limit(memory="20MB"), pytest.raises(MemoryBudgetError, match="written whole"):
        write(Endless(100, 256, 256), tmp_path / "a.mat", Recording(), SaveOptions())
    assert files.names(tmp_path) == []


@contextmanager
def file_size(limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_full_disk_leaves_nothing(tmp_path, suffix):
    chunked = suffix == ".zarr"  # each of its chunks is a file of its own
    noise = Endless(1 if chunked else 96, 1024 if chunked else 128, 1024 if chunked else 128)
    (tmp_path / f"film{suffix}").write_text("the old one")
    room = 1 << (16 if suffix == ".mp4" else 20)  # frames that are alike take little of it
    with file_size(room), pytest.raises(OutputError, match=r"film.* cannot be written.*Nothing is left"):
        write(noise, tmp_path / f"film{suffix}", Recording(), SaveOptions())
    assert files.names(tmp_path) == [f"film{suffix}"]
    assert (tmp_path / f"film{suffix}").read_text() == "the old one"


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_folder_that_cannot_be_written(tmp_path, suffix, monkeypatch):
    with pytest.raises(OutputError, match="there is no folder"):
        example().save(tmp_path / "absent" / f"a{suffix}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission to write into"):
        example().save(tmp_path / f"a{suffix}")
    assert files.names(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_source_that_breaks_leaves_nothing(tmp_path, suffix):
    class Breaking(Endless):
        def read(self, frames, out=None):
            if frames.stop > 20:
                raise ValueError("the disk went away")
            return super().read(frames, out)

    with backend.limit(chunk_frames=4), pytest.raises(ValueError, match="went away"):
        write(Breaking(30, 8, 8), tmp_path / f"a{suffix}", Recording(), SaveOptions())
    assert files.names(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_file_takes_the_place_of_the_old_one(tmp_path, suffix):
    for frames in (FRAMES[:9], FRAMES[:9] + 1):
        name = example(frames).save(tmp_path / f"film{suffix}", to32=False)
    assert len(files.names(tmp_path)) == 1
    if suffix in READERS:
        assert_array_equal(READERS[suffix](name)[0], FRAMES[:9] + 1)


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [(".avi", "av", "video"), (".nwb", "pynwb", "nwb"), (".zarr", "zarr", "zarr")],
)
def test_absent_packages_are_named(tmp_path, monkeypatch, suffix, module, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"gpucalcium\[{extra}\]"):
        example().save(tmp_path / f"a{suffix}")
    assert files.names(tmp_path) == []


def test_arrays_on_disk_are_written_too(tmp_path):
    source = open_movie(files.tiff(tmp_path / "a.tif", FRAMES))
    write(source, tmp_path / "b.npy", Recording(), SaveOptions())
    assert_array_equal(np.load(tmp_path / "b.npy"), FRAMES)


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".h5", ".nwb"])
def test_what_is_written_uncompressed_is_read_straight_from_the_file(tmp_path, suffix):
    for frames in (FRAMES, FRAMES.astype(">i4"), FRAMES > 2000, VOLUMES):
        name = example(frames).save(tmp_path / f"a{suffix}", to32=False)
        if suffix == ".nwb" and frames.dtype.kind == "b":
            continue  # stored as an enumeration
        source = open_movie(name)
        assert isinstance(source, RawSource)
        assert_array_equal(source.read(slice(2, None)), frames[2:])


@pytest.mark.parametrize("suffix", [s for s in WRITTEN if s not in (".npy", ".mmap")])
def test_saved_movies_are_loaded_with_what_is_known_of_them(tmp_path, suffix):
    is_video = suffix in (".avi", ".mkv")
    frames = (FRAMES % 256).astype(np.uint8)
    name = example(frames).save(tmp_path / f"film{suffix}", q_max=None)
    back = load(name)
    assert back.shape == frames.shape
    assert np.abs(np.asarray(back) - frames).max() <= is_video
    assert back.fr == 7.5
    if not is_video:
        assert back.meta_data == [META]
        assert back.start_time == 2


@pytest.mark.parametrize("info", [None, "a text", "[1, 2]", '{"start_time": "late"}'])
def test_tiffs_of_imagej_keep_what_is_known_and_hold_any_info(tmp_path, info):
    frames = FRAMES
    if info is None:
        known = {"fr": 12.5, "start_time": 1.5, "meta_data": [{"k": [1, 2]}]}
        movie(frames, **known).save(tmp_path / "a.tif", imagej=True, to32=False)
        loaded = load(tmp_path / "a.tif")
        assert {name: getattr(loaded, name) for name in known} == known
    else:
        tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, metadata={"axes": "TYX", "Info": info})
        loaded = load(tmp_path / "a.tif")
        assert loaded.start_time == 0
    assert_array_equal(loaded, frames)


@pytest.mark.parametrize(
    ("timed", "rate"),
    [
        ({"finterval": 0.05}, 20),
        ({"finterval": 40.0, "tunit": "ms"}, 25),
        ({"finterval": 0.0}, None),
        ({"finterval": 2.0, "tunit": "frames"}, None),
        ({"finterval": 0.05, "fps": 7.5}, 7.5),
    ],
)
def test_frame_intervals_of_imagej(tmp_path, timed, rate):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, imagej=True, metadata={"axes": "TYX", **timed})
    assert open_movie(tmp_path / "a.tif").about.get("fr") == rate
