"""The results of a run for the eye: figures, and the page of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gpucalcium
from gpucalcium import plotting
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.params_convert import same
from gpucalcium.cnmf.params_table import TABLE
from gpucalcium.pipeline.activity import GROUP
from gpucalcium.pipeline.results import FIGURES, RESULTS, Results
from gpucalcium.report import CellRow, Page, Picture, registration_pictures
from gpucalcium.rois import binary_masks

MOST_TRACES = 15
OUTLINE = 0.2  # of a footprint's maximum


def figures(results: Results) -> dict[str, Picture]:
    """File name -> figure with heading and caption."""
    found = results.estimates
    cells = results.accepted[np.argsort(-snr(results)[results.accepted], kind="stable")]
    pictures = {
        "field": Picture(
            "Field of view",
            "Correlation of each pixel with its neighbours, after registration. Outlines run at a fifth of each "
            "footprint's maximum; numbers are those of the table.",
            plotting.field_figure(
                results.correlation_image,
                found.A,
                accepted=results.accepted,
                truth=None if results.truth is None else results.truth.A,
                thr=OUTLINE,
                um_per_px=results.um_per_px,
            ),
        )
    }
    traces, noisy, unit = relative_traces(results)
    if len(cells):
        best = cells[:MOST_TRACES]
        pictures["traces"] = Picture(
            "Traces",
            f"The {len(best)} cells of highest SNR: denoised (blue), with noise (grey), spikes (red, scaled to each "
            "cell's largest).",
            plotting.trace_figure(
                traces[best],
                frame_rate=results.frame_rate,
                noisy=noisy[best],
                spikes=None if found.S is None else found.S[best],
                names=[str(k + 1) for k in best],
                unit=unit,
            ),
        )
        if results.activity is not None:
            row_of = {cell: row for row, cell in enumerate(results.activity.cells.tolist())}
            rows = [row_of[cell] for cell in best.tolist()]
            pictures["activity"] = Picture(
                "Activity",
                "Frames in which the network takes the same cells for active, from onset to peak of a transient "
                "(green), beside their traces (blue, each on its own scale) and the spikes of deconvolution (red).",
                plotting.activity_figure(
                    traces[best],
                    results.activity.predictions[rows],
                    frame_rate=results.frame_rate,
                    spikes=None if found.S is None else found.S[best],
                    names=[str(k + 1) for k in best],
                ),
            )
        pictures["components"] = Picture(
            "Cells in detail",
            "Surroundings in the correlation image, footprint, and trace on its own scale.",
            plotting.component_figure(
                found.A,
                traces,
                results.correlation_image,
                frame_rate=results.frame_rate,
                order=cells,
                noisy=noisy,
                spikes=found.S,
                captions=[
                    f"SNR {s:.1f}   r {r:.2f}" for s, r in zip(snr(results), found.r_values, strict=True)
                ],
            ),
        )
    if results.registration is not None:
        pictures["mean"] = Picture(
            "Mean image",
            "The template that frames were registered to, and the accepted cells.",
            plotting.field_figure(
                results.registration.template,
                found.A[:, results.accepted],
                thr=OUTLINE,
                numbers=False,
                um_per_px=results.um_per_px,
                label="mean (counts)",
            ),
        )
        pictures |= registration_pictures(
            results.registration.check,
            frame_rate=results.frame_rate,
            um_per_px=results.um_per_px,
            truth=None if results.truth is None else results.truth.shifts,
        )
    return pictures


def relative_traces(results: Results) -> tuple[NDArray, NDArray, str]:
    """(K, T) denoised and noisy traces over their baseline, and their unit; counts where there is no dF/F.

    dF/F is computed on noisy traces: its scale and baseline, put on the denoised ones too.
    """
    found = results.estimates
    noisy = found.C + found.YrA
    if found.F_dff is None or not np.isfinite(found.F_dff).all():
        return found.C, noisy, "counts"
    relative = found.F_dff
    return relative - found.YrA * _slope(noisy, relative), relative, "ΔF/F"


def snr(results: Results) -> NDArray:
    """(K,) SNR of each component, as it was judged by."""
    return np.asarray(results.estimates.SNR_comp, float)


def report_page(results: Results, pictures: list[Picture]) -> Page:
    """The report's contents."""
    seconds = results.frames / results.frame_rate
    details = {
        "movie": results.name,
        "device": results.device,
        "results": f"{RESULTS} (gpucalcium.load_CNMF reads it)",
        "figures": f"{FIGURES}/ (PDF and PNG)",
    }
    if results.activity is not None:
        details["activity"] = (
            f"{results.activity.classifier} (group {GROUP} of {RESULTS}; read_activity reads it)"
        )
    return Page(
        title=Path(results.name).name,
        subtitle=f"{results.frames:,} frames at {results.frame_rate:g} Hz: {seconds:,.1f} s",
        facts=results.facts(),
        details=details,
        timings=results.seconds,
        pictures=pictures,
        cells=_rows(results),
        parameters=_changed(results.params),
        notes=results.notes,
        version=gpucalcium.__version__,
    )


def _rows(results: Results) -> list[CellRow]:
    found = results.estimates
    traces = relative_traces(results)[0]
    accepted = set(results.accepted.tolist())
    sizes = np.diff(binary_masks(found.A, OUTLINE).indptr)
    places = plotting.outlines(found.A, results.dims, OUTLINE)
    return [
        CellRow(
            number=k + 1,
            accepted=k in accepted,
            snr=float(found.SNR_comp[k]),
            r=float(found.r_values[k]),
            pixels=int(sizes[k]),
            row=float(places[k].center[0]),
            column=float(places[k].center[1]),
            trace=traces[k],
        )
        for k in range(found.A.shape[1])
    ]


def _changed(params: CNMFParams) -> dict[str, dict[str, str]]:
    """Group -> parameter -> value, where that is not the default."""
    changed = {
        name: {
            key: str(value) for key, value in group.asked.items() if not same(value, TABLE[name][key].default)
        }
        for name, group in params.groups.items()
    }
    return {name: values for name, values in changed.items() if values}


def _slope(x: NDArray, y: NDArray) -> NDArray:
    """(K, 1) slope of the regression of each row of `y` on that of `x`; 0 where x is constant."""
    centred = x - x.mean(axis=1, keepdims=True)
    power = (centred * centred).sum(axis=1, keepdims=True)
    return np.divide(
        (centred * y).sum(axis=1, keepdims=True), power, out=np.zeros_like(power), where=power > 0
    )
