"""Telling the system what is read soon."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium.movies import open_movie
from gpucalcium.movies.read_ahead import read_ahead

FRAMES = np.random.default_rng(3).integers(0, 60_000, (7, 190, 211)).astype(np.uint16)
needs_hints = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no hints")


@pytest.fixture
def pages(tmp_path):
    """A stack written page by page, each directory before its values."""
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    return tmp_path / "pages.tif"


@needs_hints
def test_all_directories_of_a_stack_are_asked_for_before_they_are_walked(pages, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, place, length, advice: asked.append((place, length)))
    assert_array_equal(open_movie(pages).read(slice(None)), FRAMES)
    with tifffile.TiffFile(pages) as tiff:
        directories = [page.offset for page in tiff.pages][2:]  # the first two tell where the others are
    assert len(directories) == 5
    for offset in directories:
        assert any(place <= offset and offset + 512 <= place + length for place, length in asked)
    assert len(asked) <= len(FRAMES)


@needs_hints
def test_stacks_whose_directories_lie_together_need_no_hints(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *hint: asked.append(hint))
    tifffile.imwrite(tmp_path / "whole.tif", FRAMES, photometric="minisblack")
    assert_array_equal(open_movie(tmp_path / "whole.tif").read(slice(None)), FRAMES)
    assert len(asked) <= 1  # the second directory lies behind all values, as if pages were that far apart
    asked.clear()
    with tifffile.TiffWriter(tmp_path / "small.tif") as writer:
        for frame in FRAMES[:, :20, :30]:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    assert_array_equal(open_movie(tmp_path / "small.tif").read(slice(None)), FRAMES[:, :20, :30])
    assert not asked


def test_where_hints_cannot_be_given_or_are_not_taken_the_file_is_read_all_the_same(pages, monkeypatch):
    def refuse(*hint):
        raise OSError("not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    read_ahead(pages, range(0, 10_000, 1000), 512)
    assert_array_equal(open_movie(pages).read(slice(None)), FRAMES)
    monkeypatch.delattr(os, "posix_fadvise")
    read_ahead(pages, range(0, 10_000, 1000), 512)
    assert_array_equal(open_movie(pages).read(slice(None)), FRAMES)
