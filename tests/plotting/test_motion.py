"""Figures of motion, read back from the drawn objects."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import plotting
from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting.motion import _band, _detail
from gpucalcium.plotting.traces import MOST_POINTS
from gpucalcium.registration.residual import residual_motion
from tests.registration.scenes import moving_cells

RNG = np.random.default_rng(0)
SHIFTS = RNG.normal(size=(50, 2))
FIELD = SHIFTS[:, None, None] + RNG.normal(size=(50, 3, 4, 2))
IMAGE = RNG.random((30, 41))


def test_motion_shows_shifts_range_flags_and_truth():
    marks = np.zeros(50, bool)
    marks[[3, 40]] = True
    figure = plotting.motion_figure(
        SHIFTS, frame_rate=10, field=FIELD, flags={"a": marks, "b": ~marks}, truth=SHIFTS + np.array([5, -3])
    )
    rows, columns, below = figure.axes
    assert_array_equal(rows.lines[0].get_ydata(), SHIFTS[:, 0])
    assert_allclose(columns.lines[1].get_ydata(), SHIFTS[:, 1], atol=1e-12)  # the truth, up to a constant
    corners = columns.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == FIELD[..., 1].min()
    assert corners[:, 1].max() == FIELD[..., 1].max()
    assert [text.get_text() for text in below.get_yticklabels()] == ["a (2)", "b (48)"]
    assert_allclose([segment[0][0] for segment in below.collections[0].get_segments()], [0.3, 4.0])


def test_long_recordings_are_drawn_in_few_points():
    t = np.arange(100_000.0)
    at, low, high = _band(t, -t, t)
    assert len(at) <= MOST_POINTS
    assert (low.min(), high.max()) == (-99_999, 99_999)
    assert_array_equal(_band(t[:9], -t[:9], t[:9])[2], t[:9])


def test_templates_share_their_grey_levels_and_detail():
    sharp = np.zeros((40, 60))
    sharp[25:30:2, 35:55] = 10
    figure = plotting.template_figure(sharp * 0.5, sharp, crispness=(1.5, 3.25), um_per_px=2.0)
    images = [axes.images[0] for axes in figure.axes]
    assert len({image.get_clim() for image in images}) == 1
    assert_array_equal(images[3].get_array(), 2 * images[2].get_array())
    assert images[3].get_array().sum() > 0.9 * sharp.sum()
    assert figure.axes[1].get_title(loc="left").split() == ["after", "crispness", "3.25"]


@pytest.mark.parametrize("image", [np.ones((1, 1)), np.full((9, 9), np.nan), np.ones((3, 50))])
def test_detail_of_nothing(image):
    part = _detail(image)
    assert image[part].size


def test_agreement_is_drawn_twice():
    figure = plotting.agreement_figure(np.linspace(0.1, 0.5, 50), np.linspace(0.5, 0.9, 50), frame_rate=5)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["before: mean 0.300", "after: mean 0.700"]
    assert sum(patch.get_width() for patch in figure.axes[1].patches) == 100


def test_arrows_stand_at_the_patches_and_are_to_scale():
    centres = np.array([5.0, 15.0, 25.0]), np.array([4.0, 14.0, 24.0, 34.0])
    displacement = RNG.normal(size=(3, 4, 2))
    figure = plotting.displacement_figure(IMAGE, displacement, centres, title="frame 3")
    arrows = figure.axes[0].collections[0]
    assert_array_equal(arrows.XY[:4], [[4, 5], [14, 5], [24, 5], [34, 5]])
    assert_array_equal(arrows.U, displacement[..., 1].ravel())
    assert_array_equal(arrows.V, displacement[..., 0].ravel())
    longest = np.sqrt((displacement**2).sum(-1)).max()
    assert_allclose(longest / arrows.scale, 8)  # eight tenths of the distance of patches


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 3), (4, 5)])
def test_the_key_of_the_arrows_is_not_cut(rows, columns):
    displacement = np.zeros((rows, columns, 2))
    displacement[0, 0] = 0, 1.0  # a round length: the key is as long as the longest arrow
    centres = np.linspace(5, 24, rows), np.linspace(5, 35, columns)
    figure = plotting.displacement_figure(IMAGE, displacement, centres)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (key,) = (artist for artist in axes.get_children() if type(artist).__name__ == "QuiverKey")
    tip = axes.transAxes.transform((key.X, 0))[0]
    length = 1.0 / axes.collections[0].scale / IMAGE.shape[1] * axes.bbox.width
    assert key.pivot["E"] == "tip"
    assert tip - length >= axes.bbox.x0


def test_residual_motion_is_drawn_for_both_movies():
    found = residual_motion(moving_cells(T=40).movie, components=3)
    figure = plotting.residual_figure(found, found)
    assert_allclose([bar.get_height() for bar in figure.axes[0].patches], [*found.rigid, *found.rigid])
    assert_allclose([bar.get_height() for bar in figure.axes[1].patches[:3]], found.mean_local)
    ends = plotting.component_ends_figure(found, 1)
    assert ends.axes[0].get_title(loc="left").startswith("component 2 (")
    assert_array_equal(ends.axes[1].images[0].get_array(), found.low[1])
    assert len(plotting.residual_figure(found).axes[0].patches) == 3


@pytest.mark.parametrize("T", [0, 1])
def test_nothing_to_show(tmp_path, T):
    none, still = np.zeros((T, 2)), residual_motion(np.ones((3, 5, 5)))
    figures = [
        plotting.motion_figure(none, frame_rate=1, flags={"x": none[:, 0] > 0}),
        plotting.motion_figure(np.zeros((T, 3)), frame_rate=1),
        plotting.agreement_figure(none[:, 0], none[:, 0], frame_rate=1),
        plotting.template_figure(np.full((9, 8), np.nan), np.zeros((9, 8))),
        plotting.displacement_figure(np.zeros((9, 8)), np.zeros((1, 1, 2)), ([4.0], [3.5])),
        plotting.residual_figure(still, still),
        plotting.component_ends_figure(still),
    ]
    for number, figure in enumerate(figures):
        (path,) = plotting.save_figure(figure, tmp_path / f"figure{number}", ("png",))
        assert path.stat().st_size > 500


def test_errors():
    with pytest.raises(ArrayShapeError, match="field of 49 frames beside shifts of 50"):
        plotting.motion_figure(SHIFTS, frame_rate=1, field=FIELD[1:])
    with pytest.raises(ArrayShapeError, match="two of one field"):
        plotting.template_figure(IMAGE, IMAGE[1:])
    with pytest.raises(ArrayShapeError, match="grid of 3x3"):
        plotting.displacement_figure(IMAGE, FIELD[0], ([1, 2, 3], [1, 2, 3]))
