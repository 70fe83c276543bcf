"""What the figures show, read back from the drawn objects rather than from pixels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import plotting
from gpucalcium.errors import ArrayShapeError, MissingExtraError
from gpucalcium.plotting.style import limits
from gpucalcium.plotting.traces import MOST_POINTS, envelope

DIMS = (30, 41)
FRAME_RATE = 20.0


@pytest.fixture(scope="module")
def cells():
    """Four square cells of 4x4 pixels; (pixels, 4) in Fortran order."""
    images = np.zeros((4, *DIMS))
    for image, (row, column) in zip(images, [(2, 3), (10, 20), (24, 36), (20, 5)], strict=True):
        image[row : row + 4, column : column + 4] = 1
    return images.transpose(0, 2, 1).reshape(4, -1).T


@pytest.fixture(scope="module")
def traces():
    return np.random.default_rng(0).random((4, 90))


def curves(figure):
    """Label in the legend -> number of curves drawn, in the order of drawing."""
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    return dict(zip(labels, (len(c.get_segments()) for c in figure.axes[0].collections), strict=True))


def test_field_shows_accepted_rejected_and_truth(cells):
    image = np.random.default_rng(0).random(DIMS)
    figure = plotting.field_figure(image, cells, accepted=[0, 2, 3], truth=cells[:, :2])
    assert curves(figure) == {"cells (3)": 3, "rejected (1)": 1, "truth (2)": 2}
    assert_array_equal(figure.axes[0].images[0].get_array(), image)
    numbers = {t.get_text(): t.get_position() for t in figure.axes[0].texts}
    assert numbers["3"] == (37.5, 25.5)  # x is the column; cells are counted from 1
    assert "2" not in numbers


def test_outlines_enclose_their_cells(cells):
    figure = plotting.field_figure(np.zeros(DIMS), cells)
    corners = np.concatenate(figure.axes[0].collections[0].get_segments()[1:2])
    assert_allclose(
        corners.min(axis=0), [19.2, 9.2], atol=1e-9
    )  # a fifth of the way up from the pixel outside
    assert_allclose(corners.max(axis=0), [23.8, 13.8], atol=1e-9)


def test_scale_bar_is_as_long_as_it_says(cells):
    figure = plotting.field_figure(np.zeros(DIMS), cells, um_per_px=2.0)
    text = figure.axes[0].texts[-1].get_text()
    length = int(text.split()[0])
    left, right = figure.axes[0].lines[-1].get_xdata()
    assert "µm" in text
    assert_allclose((right - left) * 2.0, length)


def test_many_cells_are_not_numbered():
    A = np.eye(200)
    assert len(plotting.field_figure(np.zeros((10, 20)), A).axes[0].texts) == 1  # the scale


def test_traces_share_one_scale_and_ticks_sit_at_spikes(traces):
    spikes = np.zeros_like(traces)
    spikes[1, [10, 40]] = [1.0, 0.5]
    figure = plotting.trace_figure(
        traces, frame_rate=FRAME_RATE, noisy=traces + 0.1, spikes=spikes, names=list("abcd")
    )
    axes = figure.axes[0]
    ticks = axes.collections[0].get_segments()
    assert_allclose([tick[0][0] for tick in ticks], [0.5, 2.0])
    lengths = [np.ptp(tick[:, 1]) for tick in ticks]
    assert_allclose(lengths[0], 2 * lengths[1])
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcd")
    for row in range(4):
        noisy, clean = (axes.lines[2 * row + i].get_ydata() for i in (0, 1))
        assert_allclose(noisy - clean, 0.1)
        assert_allclose(np.diff(clean), np.diff(traces[row]))


def test_shifts_of_a_simulation_are_compared_up_to_a_constant():
    shifts = np.random.default_rng(1).normal(size=(50, 2))
    figure = plotting.shift_figure(
        shifts, frame_rate=FRAME_RATE, truth=shifts + np.array([3, -2]), correlation=np.ones(50)
    )
    rows, true_rows, columns, true_columns = figure.axes[0].lines[:4]
    assert_allclose(true_rows.get_ydata(), rows.get_ydata(), atol=1e-12)
    assert_allclose(true_columns.get_ydata(), columns.get_ydata(), atol=1e-12)
    assert len(figure.axes) == 2


def test_components_in_the_order_asked(cells, traces):
    figure = plotting.component_figure(
        cells,
        traces,
        np.zeros(DIMS),
        frame_rate=FRAME_RATE,
        order=[2, 0],
        spikes=traces,
        captions=list("abcd"),
    )
    assert [figure.axes[i].get_title(loc="left") for i in (0, 2, 3, 5)] == ["3", "c", "1", "a"]
    outline = figure.axes[0].collections[0].get_segments()[0]
    picture = figure.axes[1].images[0].get_array()
    rows, columns = np.nonzero(picture)
    assert_allclose(outline.mean(axis=0), [columns.mean(), rows.mean()], atol=0.2)


def test_mosaic_shows_each_footprint(cells):
    figure = plotting.footprint_figure(cells, DIMS, order=[3, 1])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["4", "2"]
    assert all(np.asarray(axes.images[0].get_array()).sum() == 16 for axes in figure.axes)


@pytest.mark.parametrize("T", [0, 1])
def test_nothing_to_show(tmp_path, T):
    none = np.zeros((0, T))
    figures = [
        plotting.field_figure(np.full(DIMS, np.nan), np.zeros((np.prod(DIMS), 0))),
        plotting.field_figure(np.zeros(DIMS), np.zeros((np.prod(DIMS), 2))),
        plotting.footprint_figure(np.zeros((np.prod(DIMS), 2)), DIMS),
        plotting.component_figure(np.zeros((np.prod(DIMS), 0)), none, np.zeros(DIMS), frame_rate=1),
        plotting.trace_figure(none, frame_rate=FRAME_RATE),
        plotting.trace_figure(np.zeros((2, T)), frame_rate=FRAME_RATE, spikes=np.zeros((2, T))),
        plotting.shift_figure(np.zeros((T, 2)), frame_rate=FRAME_RATE),
    ]
    for number, figure in enumerate(figures):
        (path,) = plotting.save_figure(figure, tmp_path / f"figure{number}", ("png",))
        assert path.stat().st_size > 500


def test_files_are_the_same_every_time(cells, tmp_path):
    written = []
    for name in "ab":
        figure = plotting.field_figure(np.eye(*DIMS), cells)
        written.append(plotting.save_figure(figure, tmp_path / name, ("png", "pdf", "svg")))
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_envelope_keeps_every_peak():
    t = np.arange(100_003.0)
    values = np.random.default_rng(0).random(100_003)
    values[51_111] = 9.0
    values[-1] = -3.0
    short_t, short = envelope(t, values)
    assert len(short) <= MOST_POINTS + 100
    assert short.max() == 9.0
    assert short.min() == -3.0
    assert_array_equal(values[short_t.astype(int)], short)


def test_limits_ignore_what_is_not_finite():
    assert limits(np.array([[0.0, np.nan], [10.0, np.inf]]), 0, 100) == (0.0, 10.0)
    assert limits(np.full((2, 2), np.nan)) == (0.0, 1.0)
    assert limits(np.ones((2, 2))) == (0.0, 1.0)


def test_errors(cells, traces, monkeypatch):
    with pytest.raises(ArrayShapeError, match="plane by plane"):
        plotting.field_figure(np.zeros((3, 4, 5)), cells)
    with pytest.raises(ArrayShapeError, match="beside"):
        plotting.trace_figure(traces, frame_rate=1, noisy=traces[:2])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"gpucalcium\[plot\]"):
        plotting.trace_figure(traces, frame_rate=1)


def test_no_window_is_ever_opened():
    code = (
        "import numpy as np, sys; from gpucalcium import plotting; "
        "plotting.trace_figure(np.ones((2, 9)), frame_rate=1.0); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
