"""Cells from NWB, footprints and Fiji."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, sparse

from gpucalcium.cinac.masks import draw_mask
from gpucalcium.cinac.rois import (
    from_fiji,
    from_footprints,
    from_nwb,
)
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
)
from tests.cinac.given import SQUARE, disc

# ---------------------------------------------------------------------------- NWB


def session(masks, invert=False, column="pixel_mask"):
    from pynwb import NWBFile
    from pynwb.ophys import ImageSegmentation, OpticalChannel

    made = NWBFile("session", "id", datetime(2026, 1, 2, tzinfo=UTC))
    plane = made.create_imaging_plane(
        name="plane", description="", device=made.create_device("scope"), excitation_lambda=900.0, indicator="",
        location="", optical_channel=OpticalChannel(name="green", description="", emission_lambda=500.0),
    )  # fmt: skip
    segmentation = ImageSegmentation(name="seg")
    made.create_processing_module("ophys", "traces").add(segmentation)
    table = segmentation.create_plane_segmentation(name="cells", description="", imaging_plane=plane)
    for mask in masks:
        if column == "pixel_mask":
            table.add_roi(pixel_mask=[(y, x, w) if invert else (x, y, w) for x, y, w in mask])
        else:
            table.add_roi(image_mask=np.ones((3, 3)))
    return made


MASKS = [[(3, 7, 1.0), (4, 7, 0.5), (4, 8, 0.1)], [(10, 11, 1.0)]]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("from_file", [False, True])
def test_cells_of_nwb(tmp_path, invert, from_file):
    data = session(MASKS, invert)
    if from_file:
        from pynwb import NWBHDF5IO

        with NWBHDF5IO(str(tmp_path / "a.nwb"), "w") as file:
            file.write(data)
        data = tmp_path / "a.nwb"
    cells = from_nwb(data, "ophys", "seg", "cells", invert_xy=invert)
    assert_array_equal(cells.bounds, [[3, 7, 4, 8], [10, 11, 10, 11]])
    assert_array_equal(cells.pixels(0, (20, 30)), [7 * 30 + 3, 7 * 30 + 4, 8 * 30 + 4])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("behavior", "seg", "cells"), "processing module named 'behavior'.*ophys"),
        (("ophys", "other", "cells"), "image segmentation in ophys named 'other'.*seg"),
        (("ophys", "seg", "other"), "plane segmentation in seg named 'other'.*cells"),
    ],
)
def test_names_that_an_nwb_file_lacks(names, text):
    with pytest.raises(DatasetNotFoundError, match=text):
        from_nwb(session(MASKS), *names)


def test_nwb_without_pixels():
    with pytest.raises(DatasetNotFoundError, match="no column pixel_mask; there are: image_mask"):
        from_nwb(session(MASKS, column="image_mask"), "ophys", "seg", "cells")
    with pytest.raises(MovieNotFoundError):
        from_nwb("nowhere.nwb", "ophys", "seg", "cells")


# ---------------------------------------------------------------------------- footprints and Fiji


def footprint(mask):
    return mask.ravel(order="F").astype(float)


def test_cells_from_footprints():
    ys, xs = np.mgrid[:30, :40]
    masks = [np.hypot(xs - x, ys - y) < r for x, y, r in ((9, 12, 5), (30, 20, 7))]
    masks[0][28, 38] = True  # a lone pixel far away
    A = sparse.csc_matrix(np.stack([footprint(mask) for mask in masks], 1))
    cells = from_footprints(A, (30, 40), thr=0.5, thr_method="max")
    assert_allclose(cells.centroids, [[9, 12], [30, 20]], atol=1e-6)
    masks[0][28, 38] = False
    for k, mask in enumerate(masks):
        drawn = draw_mask(cells.polygons[k], mask.shape)
        # the outline runs half a pixel outside, and its corners are truncated: the mask is wider to the upper left
        assert (drawn | ~mask).all()
        assert (~drawn | ndimage.binary_dilation(mask, np.ones((3, 3)))).all()
    assert_allclose(from_footprints(A.toarray(), (30, 40)).centroids, [[9, 12], [30, 20]], atol=0.5)
    with pytest.raises(ParameterError, match="cell 1 has no positive pixel"):
        from_footprints(np.stack([footprint(masks[0]), np.zeros(1200)], 1), (30, 40))
    with pytest.raises(ArrayShapeError, match="do not fit"):
        from_footprints(A, (30, 41))


@pytest.mark.parametrize("session", [1, 2, 3])
def test_footprints_of_a_real_recording(shared, session):
    """One-photon cells, some of which overlap: outlines lie where the weights do."""
    stored = np.load(shared / "data" / "real" / "footprints" / f"session_{session}.npz")
    height, width = map(int, stored["dims"])
    parts = stored["A_data"], stored["A_indices"], stored["A_indptr"]
    A = sparse.csc_matrix(parts, shape=stored["A_shape"])  # pixels in C order
    fortran = np.arange(height * width).reshape(height, width).ravel(order="F")
    cells = from_footprints(A[fortran], (height, width))
    rows, columns = np.divmod(np.arange(height * width), width)
    centres = np.stack([A.T @ columns, A.T @ rows], 1) / np.asarray(A.sum(0)).T
    assert_allclose(cells.centroids, centres, atol=0.25)
    assert all(polygon.is_valid for polygon in cells.polygons)
    inside = [A[cells.pixels(k, (height, width)), k].sum() / A[:, k].sum() for k in range(len(cells))]
    assert min(inside) > 0.85  # the outline holds 90 % of the squares
    for k, others in enumerate(cells.neighbours):
        assert all(k in cells.neighbours[other] for other in others)


def test_cells_drawn_in_fiji(tmp_path):
    roifile = pytest.importorskip("roifile")
    drawn = [
        roifile.ImagejRoi.frompoints(disc(12, 9, 4).T),
        roifile.ImagejRoi.frompoints(SQUARE.T.astype(float)),
    ]
    roifile.roiwrite(tmp_path / "all.zip", drawn)
    roifile.roiwrite(tmp_path / "one.roi", drawn[1])
    cells = from_fiji(tmp_path / "all.zip")
    assert_allclose(cells.centroids, [[12, 9], [4, 5.5]], atol=1e-4)
    assert_allclose(from_fiji(tmp_path / "one.roi").contours[0], SQUARE)
    (tmp_path / "bad.roi").write_bytes(b"Iout\0\0")
    with pytest.raises(MovieFileError, match="cannot be read as Fiji"):
        from_fiji(tmp_path / "bad.roi")
    with pytest.raises(MovieNotFoundError):
        from_fiji(tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(MovieFileError, match="holds no ROI"):
        from_fiji(tmp_path / "empty.zip")
