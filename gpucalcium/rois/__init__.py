"""Cells as regions: which found cell is which true one."""

from gpucalcium.rois.matching import (
    Match,
    binary_masks,
    intersection_over_union,
    match_footprints,
    trace_correlations,
)

__all__ = ["Match", "binary_masks", "intersection_over_union", "match_footprints", "trace_correlations"]
