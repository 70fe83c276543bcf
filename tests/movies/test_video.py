"""Reading of video files: every frame, exactly, whatever the header says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.errors import MissingExtraError, MovieFileError
from gpucalcium.movies import load, movie, open_movie, write_video
from gpucalcium.movies.about import about_recording
from tests.movies import recordings
from tests.movies.recordings import FRAMES


def test_lossy_and_coloured_videos(tmp_path):
    smooth = np.linspace(20, 230, 41 * 16 * 32).reshape(41, 16, 32).astype(np.uint8)
    for codec, pixels in (("rawvideo", "yuv420p"), ("rawvideo", "bgr24"), ("mjpeg", "yuvj420p")):
        path = recordings.video(tmp_path / f"{codec}{pixels}.avi", smooth, codec=codec, pixels=pixels)
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
    path = recordings.video(tmp_path / "a.avi", codec=codec)
    for count in (0, 5, 40):
        _with_count(path, count)
        assert_array_equal(open_movie(path).read(slice(None)), FRAMES)
        assert_array_equal(open_movie(path).read(slice(35, 38)), FRAMES[35:38])
    _with_count(path, 10**9)
    with pytest.raises(MovieFileError, match=r"promises 1000000000 frames, 41 are there"):
        open_movie(path)


def test_a_frame_that_cannot_be_decoded_is_named_and_the_rest_read(tmp_path):
    path = recordings.video(tmp_path / "a.avi", g="1")
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


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
@pytest.mark.parametrize("compress", [0, 1])
@pytest.mark.parametrize("size", [(18, 14), (19, 15), (5, 3), (1, 1)])
def test_videos_that_are_written_come_back_within_a_grey_level(tmp_path, suffix, compress, size):
    frames = np.random.default_rng(5).integers(0, 256, (12, *size)).astype(np.uint8)
    name = movie(frames, fr=7.5).save(tmp_path / f"a.{suffix}", q_min=None, q_max=None, compress=compress)
    is_lossless = compress or suffix == "mp4"
    assert_allclose(load(name), frames, atol=0 if is_lossless else 1)
    assert_array_equal(load(name, subindices=[7, 3]), load(name)[[7, 3]])
    assert load(name).fr == 7.5


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
@pytest.mark.parametrize("compress", [0, 1])
@pytest.mark.parametrize("range_", [(-0.3, 1.7), (200.0, 65_000.0), (5.0, 5.0)])
def test_a_video_says_which_values_its_greys_were(tmp_path, suffix, compress, range_):
    values = np.random.default_rng(8).uniform(*range_, (12, 18, 14)).astype(np.float32)
    about = {"fr": 7.5, "start_time": 2.0, "meta_data": [{"a": 1}]}
    name = movie(values, **about).save(tmp_path / f"a.{suffix}", compress=compress)
    source = open_movie(name)
    black, white = source.about["levels"]
    assert (black, white) == pytest.approx(np.percentile(values, [1, 99.75]), rel=1e-6)
    greys = source.read(slice(None))
    assert greys.dtype == np.uint8
    level = (white - black) / 255
    off = 0.5 if compress or suffix == "mp4" else 1.5  # IYUV has 219 levels
    assert_allclose(black + greys * level, np.clip(values, black, white), atol=off * level + 1e-6 * white)
    again = load(name)
    assert_array_equal(again, greys)
    assert {key: getattr(again, key) for key in about} == about


def test_levels_as_they_are_and_levels_that_make_no_sense(tmp_path):
    movie(FRAMES, fr=5).save(tmp_path / "a.avi", q_min=None)
    assert open_movie(tmp_path / "a.avi").about["levels"] == (0.0, 255.0)
    for levels in ("x", [1], [1, None], [1.0, float("nan")], {"a": 1, "b": 2}):
        assert "levels" not in about_recording({"fr": 2.0, "levels": levels})


def test_mp4_is_lossless_h264_of_grey_levels(tmp_path, caplog):
    av = pytest.importorskip("av")
    name = movie(FRAMES, fr=30).save(tmp_path / "a.mp4", compress=3)
    assert ".mp4 files have no place for compress" in caplog.text
    with av.open(name) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.frames == len(FRAMES)
    levels = load(name)
    assert (levels.min(), levels.max()) == (0, 255)


def test_an_encoder_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(write_video, "_H264", write_video._Codec("no_such_codec", "gray"))
    with pytest.raises(MissingExtraError, match=r"no_such_codec.*\.mkv or \.avi"):
        movie(FRAMES).save(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
