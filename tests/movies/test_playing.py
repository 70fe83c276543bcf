"""Showing movies: levels against the formula, the notebook's page, windows of stand-ins, video files."""

import base64
import gzip
import html
import inspect
import json
import re
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import ArrayShapeError, MissingExtraError, NotSupportedError, ParameterError
from gpucalcium.movies import movie, play_movie
from gpucalcium.movies.playing import NotebookPlayer, Screen, View, check_backend, write_screen

FRAMES = np.random.default_rng(0).gamma(4, 20, (15, 12, 17)).astype(np.float32)


def shown(frames, **view):
    screen = Screen(movie(frames, fr=20), View(**view))
    levels = np.stack(list(screen))
    assert levels.shape == screen.shape and levels.dtype == np.uint8
    return levels


def about(player):
    return json.loads(re.search(r"const movie = (\{.*\});", player.page()).group(1))


def unpacked(player):
    facts = about(player)
    levels = np.frombuffer(gzip.decompress(base64.b64decode(facts["levels"])), np.uint8)
    return levels.reshape(facts["frames"], facts["rows"], facts["columns"])


# ---------------------------------------------------------------------------- levels


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_levels_are_the_formula(dtype):
    frames = FRAMES.clip(0, 127).astype(dtype)
    low, high = np.percentile(frames[:10], [1, 99.75])
    expected = np.rint(np.clip((frames.astype(float) + 3 - low) * 1.5 / (high - low), 0, 1) * 255)
    assert np.abs(shown(frames, gain=1.5, offset=3).astype(int) - expected).max() <= 1  # float32 at a half


def test_percentiles_of_0_and_100_are_the_extremes_of_the_movie():
    frames = FRAMES.copy()
    frames[13, 2, 3], frames[14, 4, 5] = -500, 1000
    levels = shown(frames, q_min=0, q_max=100)
    assert levels[13, 2, 3] == 0 and levels[14, 4, 5] == 255
    assert levels[:10].min() > 70 and levels[:10].max() < 200


def test_borders_are_left_out_and_frames_enlarged():
    plain = shown(FRAMES)
    assert shown(FRAMES, bord_px=2, q_min=0, q_max=100).shape == (15, 8, 13)
    doubled = shown(FRAMES, magnification=2, interpolation=0)
    assert_array_equal(doubled[:, ::2, ::2], plain)
    assert_array_equal(doubled[:, 1::2, 1::2], plain)
    assert (shown(FRAMES, magnification=2, interpolation=1) != doubled).any()
    assert shown(FRAMES, magnification=0.5).shape == (15, 6, 8)


def test_text_is_written_into_frames():
    dark = np.zeros((3, 20, 80), np.float32)
    texts = shown(dark, plot_text=True)
    assert (texts > 0).any(axis=(1, 2)).all() and (texts[0] != texts[1]).any()
    assert not shown(dark).any()


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
def test_constant_and_missing_frames_have_levels(value):
    assert shown(np.full((1, 3, 4), value)).shape == (1, 3, 4)


# ---------------------------------------------------------------------------- in a notebook


@pytest.mark.parametrize("backend", ["notebook", "embed_opencv"])
def test_page_holds_the_frames(backend):
    recording = movie(FRAMES, fr=20, start_time=3)
    player = recording.play(backend=backend, fr=12.5, do_loop=True)
    assert isinstance(player, NotebookPlayer)
    assert_array_equal(unpacked(player), shown(FRAMES))
    facts = about(player)
    assert (facts["rate"], facts["recorded"], facts["start"], facts["loop"]) == (12.5, 20, 3, True)
    assert about(recording.play(backend=backend))["rate"] == 20
    assert "15 frames" in repr(player)


def test_page_stands_alone_in_a_frame(tmp_path):
    player = movie(FRAMES).play(backend="notebook")
    cell = player._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', cell).group(1)) == player.page()
    assert 'sandbox="allow-scripts"' in cell
    assert not re.search(r"https?://|src=", player.page())
    player.save(tmp_path / "movie.html")
    assert (tmp_path / "movie.html").read_text(encoding="utf-8") == player.page()


def test_page_has_a_limit():
    large = movie(np.broadcast_to(np.float32(1), (300, 1000, 1000)))
    with pytest.raises(ParameterError, match="286 MiB of pixels"):
        large.play(backend="notebook", q_min=1)


# ---------------------------------------------------------------------------- in windows


def opencv(monkeypatch, quits_after, closes_after=np.inf):
    """A stand-in for OpenCV that remembers what it showed."""
    seen, closed = [], []
    keys = iter([-1] * quits_after + [ord("q")] * 100)
    module = types.SimpleNamespace(
        imshow=lambda title, frame: seen.append(frame),
        waitKey=lambda ms: next(keys),
        WND_PROP_VISIBLE=4,
        getWindowProperty=lambda title, which: float(len(seen) < closes_after),
        destroyAllWindows=lambda: closed.append(True),
    )
    monkeypatch.setitem(sys.modules, "cv2", module)
    monkeypatch.setenv("DISPLAY", ":0")
    return seen, closed


def test_opencv_shows_every_frame_once(monkeypatch):
    seen, closed = opencv(monkeypatch, quits_after=1000)
    assert movie(FRAMES).play(fr=1e6) is None
    assert_array_equal(seen, shown(FRAMES))
    assert closed == [True]


def test_opencv_repeats_until_q(monkeypatch):
    seen, closed = opencv(monkeypatch, quits_after=40)
    movie(FRAMES).play(fr=1e6, do_loop=True)
    assert len(seen) == 41 and closed == [True]


def test_closing_the_window_ends_it(monkeypatch):
    seen, closed = opencv(monkeypatch, quits_after=1000, closes_after=7)
    movie(FRAMES).play(fr=1e6, do_loop=True)
    assert len(seen) == 7 and closed == [True]


def test_opencv_absent_or_without_a_display(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="backend='notebook'"):
        movie(FRAMES).play()
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace())
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(NotSupportedError, match="no display"):
        movie(FRAMES).play()


@pytest.mark.parametrize("backend", ["pyplot", "pylab"])
def test_matplotlib_animates(backend, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    animation = movie(FRAMES, fr=20).play(backend=backend)
    (image,) = animation._func(4)
    assert_array_equal(image.get_array(), shown(FRAMES)[4])
    assert animation._interval == 50 and not animation._repeat
    animation._draw_was_started = True  # it is not drawn, and must not warn of it
    pyplot.close("all")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="Matplotlib"):
        check_backend(backend)


# ---------------------------------------------------------------------------- files


def decoded(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]), rate


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_saved_movie_is_what_is_shown(tmp_path, suffix):
    path = tmp_path / f"seen{suffix}"
    movie(FRAMES, fr=20).play(
        backend="notebook", save_movie=True, opencv_codec="FFV1", movie_name=path, gain=1.3, magnification=3
    )
    levels, rate = decoded(path)
    assert_array_equal(levels, shown(FRAMES, gain=1.3, magnification=3))
    assert rate == pytest.approx(20)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("codec", ["H264", "MJPG", "XVID"])
@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_common_codecs(tmp_path, codec, suffix):
    av = pytest.importorskip("av")
    ramp = np.linspace(0, 255, 40)[None, None] * np.ones((6, 31, 1))
    screen = Screen(movie(ramp, fr=29.97), View(q_min=0, q_max=100))
    if codec == "H264" and "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no libx264")
    write_screen(screen, tmp_path / f"seen{suffix}", codec)
    levels, rate = decoded(tmp_path / f"seen{suffix}")
    assert levels.shape == (6, 32, 40) and rate == pytest.approx(29.97, rel=1e-3)
    assert np.abs(levels[:, :31].astype(int) - np.stack(list(screen))).mean() < 6  # lossy


def test_saving_says_what_is_wrong(tmp_path):
    pytest.importorskip("av")
    recording = movie(FRAMES)
    with pytest.raises(ParameterError, match="opencv_codec='ABCD'"):
        recording.play(backend="notebook", save_movie=True, opencv_codec="ABCD")
    with pytest.raises(ParameterError, match="cannot be written"):
        recording.play(backend="notebook", save_movie=True, movie_name=tmp_path / "seen.xyz")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- from files, and errors


def test_files_and_parts_are_played(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    whole = play_movie(tmp_path / "a.npy", backend="notebook")
    assert_array_equal(unpacked(whole), shown(FRAMES))
    part = play_movie(str(tmp_path / "a.npy"), backend="notebook", subindices=slice(3, 9))
    assert_array_equal(unpacked(part), shown(FRAMES[3:9]))
    two = play_movie([tmp_path / "a.npy", tmp_path / "a.npy"], backend="notebook")
    assert about(two)["frames"] == 30
    one = play_movie(FRAMES, backend="notebook", subindices=4)
    assert_array_equal(unpacked(one), shown(FRAMES[4:5]))


def test_frames_are_averaged_and_keep_their_speed():
    recording = movie(FRAMES, fr=20)
    player = play_movie(recording, backend="notebook", tsub=3)
    assert_array_equal(unpacked(player), shown(FRAMES.reshape(5, 3, 12, 17).mean(axis=1)))
    assert about(player)["rate"] == pytest.approx(20 / 3)
    with pytest.raises(ParameterError, match="tsub=0"):
        play_movie(recording, backend="notebook", tsub=0)


def test_playing_says_what_is_wrong():
    recording = movie(FRAMES)
    for match, wrong in [
        ("Unknown backend!", {"backend": "vlc"}),
        ("q_min=50", {"backend": "notebook", "q_min": 50, "q_max": 20}),
        ("fr=0", {"backend": "notebook", "fr": 0}),
        ("bord_px=-1", {"backend": "notebook", "bord_px": -1}),
        ("bord_px=6 leaves nothing", {"backend": "notebook", "bord_px": 6}),
        ("factor of 0", {"backend": "notebook", "magnification": 0}),
        ("interpolation=9", {"backend": "notebook", "interpolation": 9, "magnification": 2}),
    ]:
        with pytest.raises(ParameterError, match=match):
            recording.play(**wrong)
    with pytest.raises(ArrayShapeError, match="choose a plane"):
        movie(np.ones((2, 3, 4, 5))).play(backend="notebook")


def test_extremes_leave_out_what_is_no_number():
    frames = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    frames[0, 0, 0], frames[1] = np.nan, np.inf
    levels = Screen(movie(frames, fr=1), View(q_min=0, q_max=100))
    assert levels.frame(4)[-1, -1] == 255 and levels.frame(0)[0, 1] == 0
    assert levels.frame(0)[0, 0] == 0 and (levels.frame(1) == 255).all()


def test_the_two_ways_to_play_take_the_same():
    """`play_movie` repeats the parameters of the method, for readers and editors: they must not part."""
    method, function = (inspect.signature(f).parameters for f in (movie.play, play_movie))
    assert list(function)[1:15] == list(method)[1:]
    for name in list(method)[1:]:
        assert function[name] == method[name]
