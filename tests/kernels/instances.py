"""Which instantiations of each kernel are compiled by the tests: file -> kernel -> template arguments.

As in the call of a kernel: dtypes and numbers, in order; ``()`` for a plain function. List what the
wing asks for: every dtype it lets through, and the smallest and largest of each number.
"""

from __future__ import annotations

PIXELS = ("uint8", "int16", "uint16", "float32")

INSTANCES: dict[str, dict[str, list[tuple]]] = {
    "baseline.cu": {
        "percentile": [(pixel,) for pixel in (*PIXELS, "float64")],
        "add_present": [(pixel,) for pixel in (*PIXELS, "float64")],
        "between": [("float32",), ("float64",)],
        "subtract": [
            (pixel, result, method)
            for pixel in (*PIXELS, "float64")
            for result in ("float32", "float64")
            for method in range(3)
        ],
    },
    "correlation.cu": {
        "add_products": [(pixel, m) for pixel in (*PIXELS, "float64") for m in (0, 2, 4, 13)],
        "scales": [()],
        "images": [()],
    },
    "cutouts.cu": {"gather": [(pixel,) for pixel in (*PIXELS, "float64")]},
    "field.cu": {
        "smallest": [(pixel,) for pixel in PIXELS],
        **{name: [(pixel, axes) for pixel in PIXELS for axes in (2, 3)] for name in ("warp", "cut")},
        "blend": [(2,), (3,)],
    },
    "filters.cu": {
        "correlate": [(pixel, border) for pixel in PIXELS for border in range(4)],
        "bilateral": [(pixel,) for pixel in PIXELS],
    },
    "greedy.cu": {name: [()] for name in "seek list_box copy_trace weigh see blur take_out energy".split()},
    "hals.cu": {"sweep_traces": [()], "sweep_footprints": [()]},
    "layout.cu": {
        name: [
            *((pixel, stored, False) for pixel in PIXELS for stored in ("float32", "int16", "uint16")),
            *((pixel, "uint16", True) for pixel in PIXELS),
        ]
        for name in ("store", "turn")
    },
    "nnls.cu": {"lasso": [()], "nnls_l0": [()]},
    "oasis_search.cu": {"constrained_ar1": [("float32",), ("float64",)]},
    "oasis.cu": {
        "ar1": [("float32",), ("float64",)],
        "greedy_ar1": [("float32",), ("float64",)],
        "take_start": [()],
    },
    "registration.cu": {
        **{
            name: [(pixel,) for pixel in PIXELS]
            for name in ("prepare", "plan_moves", "displace", "add_frames", "add_squares")
        },
        "climb": [(1,), (2,)],
        **{name: [()] for name in ("weigh", "mark_border", "add_power")},
    },
    "patches.cu": {"gather": [(pixel,) for pixel in PIXELS], "weigh": [()], "settle": [()]},
    "products.cu": {
        name: [(pixel,) for pixel in (*PIXELS, "float64")]
        for name in ("project", "add_samples", "add_squares")
    },
    "sliding.cu": {
        "slide": [(pixel, m) for pixel in (*PIXELS, "float64") for m in (0, 2, 4, 13)],
        "departures": [(pixel,) for pixel in (*PIXELS, "float64")],
        "fade": [(0,), (4,), (13,)],
    },
    "ring.cu": {"add_pair_products": [()], "ring_weights": [()], "predict": [()]},
    "spectrum.cu": {
        "collect": [(pixel,) for pixel in (*PIXELS, "float64")],
        "power": [()],
        "level": [(method,) for method in range(3)],
    },
    "quantile.cu": {
        "running_percentile": [()],
        "mode_percentile": [()],
    },
    "onnls.cu": {name: [("float32",), ("float64",)] for name in ("nnls_ar2", "gradient_ar2")},
}
