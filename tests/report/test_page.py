from __future__ import annotations

import re

import numpy as np
import pytest

from gpucalcium.plotting import trace_figure
from gpucalcium.report import CellRow, Page, Picture, render, render_index
from gpucalcium.report.page import SPARK_HEIGHT, SPARK_POINTS, number, spark


def page(**changes):
    contents = {
        "title": "<script>alert(1)</script>",
        "subtitle": "a & b",
        "facts": {"cells": "1"},
        "details": {"movie": "a.tif"},
        "timings": {"fit": 4.0, "report": 1.0},
        "pictures": [Picture("Traces", "of <cells>", trace_figure(np.ones((1, 9)), frame_rate=1.0))],
        "cells": [CellRow(1, True, 3.21, float("nan"), 80, 2.0, 3.0, np.arange(9.0))],
        "parameters": {"init": {"K": "5"}},
    }
    return Page(**contents | changes)


def test_nothing_that_a_file_name_holds_is_executed():
    text = render(page())
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "of &lt;cells&gt;" in text


def test_numbers_figures_and_bars():
    text = render(page())
    assert '<td data-value="3.21">3.2</td>' in text
    assert '<td data-value="nan">–</td>' in text
    assert text.count("data:image/png;base64,") == 1
    assert re.findall(r'class="bar" style="width: ([\d.]+)%"', text) == ["100.0", "25.0"]


def test_the_same_run_gives_the_same_page():
    assert render(page()) == render(page())


def test_empty_report():
    text = render(page(cells=[], pictures=[], timings={}, parameters={}))
    assert "No component was found" in text
    assert "All at their defaults" in text


def test_index_links_to_each_report():
    text = render_index("fish", [("plane 0", "plane_0/report.html", {"cells": "3"})], "1.0")
    assert '<a href="plane_0/report.html">plane 0</a>' in text
    assert "<dd>3</dd>" in text


@pytest.mark.parametrize("T", [1, 7, SPARK_POINTS, 10_007])
def test_spark_keeps_the_peak(T):
    trace = np.zeros(T)
    trace[T // 3] = 5.0
    points = re.search(r'points="([^"]*)"', spark(trace))[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == min(T, SPARK_POINTS)
    if T > 1:
        assert np.argmin(heights) == pytest.approx(len(points) / 3, abs=2)
        assert max(heights) == SPARK_HEIGHT - 1


@pytest.mark.parametrize("trace", [np.zeros(0), np.full(9, np.nan), np.ones(9)])
def test_spark_of_nothing_is_a_line(trace):
    assert "nan" not in spark(trace)


def test_number():
    assert (number(1.005, 1), number(float("inf")), number(2)) == ("1.0", "–", "2.00")
