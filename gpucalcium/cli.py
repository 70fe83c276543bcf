"""The command ``gpucalcium``: demo, run, register, info, convert, convert-network, doctor.

What goes wrong on purpose is said in one line on stderr, and the exit status is 2; ``--debug`` shows where.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpucalcium.errors import GpuCalciumError, OutputError, ParameterError

if TYPE_CHECKING:
    from gpucalcium.pipeline import Results

FAILED, BROKEN = 2, 1  # exit status: the input or the machine; a defect of ours
DEMO_RATE, DEMO_DECAY_S = 20.0, 0.6
DEMO_CELL_AREA = 273  # px of field per cell: 60 cells on 128 x 128
PER_AXIS = "one number, or rows,columns"

app = typer.Typer(
    help="Calcium imaging movies to cells, traces and spikes, on a GPU where there is one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="Where to work: auto, cpu, cuda or cuda:N.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results; made if it is not there.")
]
Dataset = Annotated[str | None, typer.Option(help="Which array of an .npz or HDF5 file.")]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes", "--planes", help="What each axis is: T time, Z plane, Y row, X column; for instance TZYX."
    ),
]
FileAxes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        "--planes",
        help="What each axis is: T time, Z plane, Y row, X column, C channel; for instance TZYXC.",
    ),
]
Channel = Annotated[int | None, typer.Option(help="Which of several channels or colours, from 0.")]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command; ends the process with an exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"])
    except (GpuCalciumError, OSError, MemoryError) as err:
        _fail(f"error: {err}", FAILED, debug)
    except Exception as err:  # noqa: BLE001 - whatever else escapes is a defect, and is named as one
        _fail(
            f"internal error: {type(err).__name__}: {err} (run again with --debug for the traceback)",
            BROKEN,
            debug,
        )


def _fail(message: str, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(status)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what is going on.")] = False,
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("gpucalcium").setLevel(logging.INFO if verbose else logging.WARNING)
    # what tifffile says of a bad file our own error says better
    logging.getLogger("tifffile").setLevel(logging.DEBUG if debug else logging.CRITICAL)
    logging.captureWarnings(not debug)
    warnings.simplefilter("once")
    if version:
        from gpucalcium import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    output: Output = Path("gpucalcium-demo"),
    frames: Annotated[int, typer.Option(min=100, help="Frames of the simulated movie.")] = 1500,
    size: Annotated[int, typer.Option(min=48, help="Rows and columns of the field, px.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another movie.")] = 0,
    device: Device = "auto",
) -> None:
    """Simulate a two-photon movie, find its cells, and score them against the truth."""
    from gpucalcium import backend
    from gpucalcium.pipeline import RunSettings, run
    from gpucalcium.pipeline.output import check_output
    from gpucalcium.pipeline.stages import Stages
    from gpucalcium.simulate import two_photon

    check_output(output)
    backend.use(device)
    stages = Stages(shown=True)
    with stages.stage("simulation"):
        cells = max(1, size * size // DEMO_CELL_AREA)
        scene = two_photon(
            frames,
            (size, size),
            cells,
            frame_rate=DEMO_RATE,
            decay_s=DEMO_DECAY_S,
            motion=4.0,
            amplitude=16.0,
            resting=12.0,
            seed=seed,
        )
    asked = RunSettings(frame_rate=DEMO_RATE, decay_s=DEMO_DECAY_S)
    results = run(scene.movie, output, asked, truth=scene, name="Simulated two-photon movie", progress=True)
    _report(results, {**stages.seconds, **results.seconds})
    _score(results)


@app.command()
def run(
    files: Annotated[list[Path], typer.Argument(help="The movie; several files follow each other in time.")],
    output: Output,
    frame_rate: Annotated[float | None, typer.Option(help="Frames per second, Hz.")] = None,
    decay_time: Annotated[float, typer.Option(help="Decay time of a typical transient, s.")] = 0.4,
    cell_radius: Annotated[
        float | None, typer.Option(help="Radius of a cell, px; guessed if not given.")
    ] = None,
    components: Annotated[
        int | None, typer.Option(help="Components to start from; guessed if not given.")
    ] = None,
    motion_correct: Annotated[bool, typer.Option(help="Register the frames first.")] = True,
    pw_rigid: Annotated[
        bool, typer.Option("--pw-rigid", help="Register patches of the field, each on its own.")
    ] = False,
    max_shift: Annotated[int | None, typer.Option(help="Largest motion, px.")] = None,
    refit: Annotated[bool, typer.Option(help="Fit once more from what looks like cells.")] = True,
    um_per_px: Annotated[float | None, typer.Option(help="Size of a pixel in micrometres.")] = None,
    cinac: Annotated[
        bool, typer.Option("--cinac", help="Predict activity by a network that looks at the movie, too.")
    ] = False,
    cinac_model: Annotated[
        Path | None, typer.Option(help="Model file (.json) of that network; default: the one shipped.")
    ] = None,
    cinac_weights: Annotated[
        Path | None, typer.Option(help="Its weights, where the model file does not name them (.h5).")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="JSON file with further parameters: {group: {name: value}}.")
    ] = None,
    dataset: Dataset = None,
    axes: Axes = None,
    device: Device = "auto",
) -> None:
    """Find the cells of a movie: TIFF, HDF5, NWB, NPY, NPZ or a memory map.

    Planes are run one by one, each into a folder of its own.
    """
    from gpucalcium import backend
    from gpucalcium.pipeline import RunSettings, run_recording

    asked = RunSettings(
        frame_rate=frame_rate,
        decay_s=decay_time,
        cell_radius=cell_radius,
        n_components=components,
        motion_correct=motion_correct,
        pw_rigid=pw_rigid,
        max_shift=max_shift,
        refit=refit,
        um_per_px=um_per_px,
        cinac=cinac or cinac_model is not None,
        cinac_model=cinac_model,
        cinac_weights=cinac_weights,
        params={} if params is None else _read_params(params),
    )
    backend.use(device)
    movie: Any = files[0] if len(files) == 1 else files
    for results in run_recording(movie, output, asked, dataset=dataset, axes=axes, progress=True):
        _report(results, results.seconds)


@app.command()
def register(
    files: Annotated[list[Path], typer.Argument(help="The movie; several files follow each other in time.")],
    output: Output,
    frame_rate: Annotated[float | None, typer.Option(help="Frames per second, Hz.")] = None,
    pw_rigid: Annotated[
        bool, typer.Option("--pw-rigid", help="Register patches of the field, each on its own.")
    ] = False,
    max_shifts: Annotated[
        str | None, typer.Option("--max-shift", "--max-shifts", help=f"Largest motion, px; {PER_AXIS}.")
    ] = None,
    gsig_filt: Annotated[
        str | None,
        typer.Option(help=f"One-photon: width of the high-pass that finds motion, px; {PER_AXIS}."),
    ] = None,
    niter_rig: Annotated[int | None, typer.Option(help="Passes, each with a new template.")] = None,
    strides: Annotated[
        str | None, typer.Option(help=f"Distance of patches, px, with --pw-rigid; {PER_AXIS}.")
    ] = None,
    overlaps: Annotated[
        str | None, typer.Option(help=f"What neighbouring patches share, px, with --pw-rigid; {PER_AXIS}.")
    ] = None,
    max_deviation_rigid: Annotated[
        int | None, typer.Option(help="Largest motion of a patch beside its frame's, px, with --pw-rigid.")
    ] = None,
    fourier: Annotated[
        bool, typer.Option("--fourier", help="Move frames by Fourier transform, not by interpolation.")
    ] = False,
    um_per_px: Annotated[float | None, typer.Option(help="Size of a pixel in micrometres.")] = None,
    save: Annotated[
        str | None, typer.Option(help="Write the registered movie, too: mmap, hdf5, zarr or tiff.")
    ] = None,
    dataset: Dataset = None,
    axes: Axes = None,
    device: Device = "auto",
) -> None:
    """Find the motion in a movie, and report on it: shifts, the movie before and after, what motion is left.

    Planes are registered one by one, each into a folder of its own.
    """
    from gpucalcium import backend
    from gpucalcium.pipeline import RunSettings, register_recording

    of_patches = {
        "strides": _pixels("--strides", strides),
        "overlaps": _pixels("--overlaps", overlaps),
        "max_deviation_rigid": max_deviation_rigid,
    }
    if not pw_rigid and any(value is not None for value in of_patches.values()):
        raise ParameterError("--strides, --overlaps and --max-deviation-rigid are of patches: add --pw-rigid")
    motion = of_patches | {
        "max_shifts": _pixels("--max-shifts", max_shifts),
        "gSig_filt": _pixels("--gsig-filt", gsig_filt),
        "niter_rig": niter_rig,
        "shifts_opencv": False if fourier else None,
    }
    asked = RunSettings(
        frame_rate=frame_rate,
        pw_rigid=pw_rigid,
        um_per_px=um_per_px,
        params={"motion": {name: value for name, value in motion.items() if value is not None}},
    )
    backend.use(device)
    movie: Any = files[0] if len(files) == 1 else files
    checks = register_recording(movie, output, asked, dataset=dataset, axes=axes, save=save, progress=True)
    for check in checks:
        print()
        for name, value in check.facts().items():
            print(f"{name:<20}{value}")
    where = output if len(checks) == 1 else output / "plane_*"
    print(f"results: {where}/motion.npz, report.html, figures/")


def _pixels(option: str, text: str | None) -> int | tuple[int, ...] | None:
    """Whole numbers, one for every axis or one for all, from "6" or "6,8"."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ParameterError(f"{option} {text}: expected whole numbers of pixels, 6 or 6,8")
    values = tuple(int(number) for number in text.split(","))
    return values if len(values) > 1 else values[0]


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A movie.")],
    dataset: Dataset = None,
    axes: FileAxes = None,
    channel: Channel = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say what a file holds, without reading its frames."""
    facts = _facts(file, dataset, axes, channel)
    if as_json:
        print(json.dumps(facts, indent=1, default=str))
        return
    rate, start = facts["frame_rate"], facts["start_time"]
    duration = "" if rate is None else f", {facts['frames'] / rate:,.1f} s"
    print(f"file         {file}")
    print(f"frames       {facts['frames']:,}{duration}")
    print(f"field        {facts['rows']} x {facts['columns']} px")
    print(f"planes       {facts['planes']}")
    print(f"values       {facts['dtype']}, {facts['bytes'] / 2**20:,.1f} MiB")
    print(f"on disk      {facts['bytes_on_disk'] / 2**20:,.1f} MiB, compression: {facts['compression']}")
    print(f"frame rate   {'not in the file' if rate is None else f'{rate:g} Hz'}")
    print(f"start        {'not in the file' if start is None else f'{start:g} s'}")
    if levels := facts["levels"]:
        print(f"grey levels  0 shows {levels[0]:g}, 255 shows {levels[1]:g}")
    print(f"metadata     {json.dumps(facts['meta_data'], default=str) if facts['meta_data'] else 'none'}")


def _facts(file: Path, dataset: str | None, axes: str | None, channel: int | None) -> dict[str, Any]:
    """What `info` says, by name."""
    from gpucalcium.movies import open_movie
    from gpucalcium.movies.axes import movie_order
    from gpucalcium.movies.facts import bytes_on_disk, compression_of
    from gpucalcium.pipeline import open_planes

    opened = open_movie(file, var_name_hdf5=dataset or "mov", channel=channel, axes=axes)
    if axes is None and channel is None:
        planes = open_planes(file, dataset=dataset)
    else:
        planes = open_planes(opened, axes=None if axes is None else movie_order(axes.upper()))
    source, about = planes[0].source, getattr(opened, "about", {})
    frames, rows, columns = source.shape
    return {
        "file": str(file),
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "planes": len(planes),
        "dtype": str(source.dtype),
        "bytes": len(planes) * frames * rows * columns * source.dtype.itemsize,
        "bytes_on_disk": bytes_on_disk(file),
        "compression": compression_of(file, dataset),
        "frame_rate": about.get("fr"),
        "start_time": about.get("start_time"),
        "levels": about.get("levels"),
        "meta_data": [one for one in about.get("meta_data", []) if one is not None],
    }


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A movie.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its ending says of what kind.")],
    dataset: Dataset = None,
    axes: FileAxes = None,
    channel: Channel = None,
    frames: Annotated[
        str | None,
        typer.Option(help="Frames to take, from 0: first:end or first:end:step; the end is left out."),
    ] = None,
    frame_rate: Annotated[
        float | None, typer.Option(help="Frames per second, Hz; else what the file says.")
    ] = None,
    compress: Annotated[int, typer.Option(min=0, max=9, help="Level of compression, 0 for none.")] = 0,
    float32: Annotated[bool, typer.Option("--float32", help="TIFF: store float32.")] = False,
    imagej: Annotated[bool, typer.Option("--imagej", help="TIFF: the format of ImageJ.")] = False,
    order: Annotated[str, typer.Option(help="Memory map: F, frame after frame; C, trace after trace.")] = "F",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a movie into a file of another kind: TIFF, HDF5, NWB, Zarr, NPY, NPZ, MAT, AVI, MKV, MP4, a memory map."""
    from gpucalcium.movies import convert as converted

    if target.exists() and not overwrite:
        raise OutputError(f"{target} is there already: choose another name, or add --overwrite")
    name = converted(
        source,
        target,
        dataset=dataset,
        axes=axes,
        channel=channel,
        frames=None if frames is None else _frame_range(frames),
        fr=frame_rate,
        compress=compress,
        to32=float32,
        imagej=imagej,
        order=order,
    )
    print(name)


def _frame_range(text: str) -> slice:
    """The slice that "first:end" or "first:end:step" means."""
    if not re.fullmatch(r"-?\d*(:-?\d*){1,2}", text):
        raise ParameterError(f"--frames {text}: expected first:end or first:end:step, for instance 100:2000")
    return slice(*(int(number) if number else None for number in text.split(":")))


@app.command()
def convert_network(
    model: Annotated[Path, typer.Argument(help="Keras 2: the .json of a network, or a whole model, .h5.")],
    target: Annotated[Path, typer.Argument(help="NAME.json; the weights go beside it, NAME.safetensors.")],
    weights: Annotated[
        Path | None, typer.Option(help="Its weights, .h5; else the file of the model's name.")
    ] = None,
    lambdas: Annotated[
        list[str] | None,
        typer.Option("--lambda", help="layer=swish: what a Lambda layer does, if its code does not tell."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write a Keras network of cinac in this library's own format, which needs no guesses to be read."""
    from gpucalcium.nets import load_network, save_network
    from gpucalcium.nets.network_file import files_of

    if not overwrite and any(path.exists() for path in files_of(target)):
        raise OutputError(f"{target} is there already: choose another name, or add --overwrite")
    network = load_network(
        model, weights, device="cpu", lambdas=dict(_equation(text, "--lambda") for text in lambdas or [])
    )
    for path in save_network(network, target):
        print(path)


def _equation(text: str, option: str) -> tuple[str, str]:
    name, is_equal, value = text.partition("=")
    if not (name and is_equal and value):
        raise ParameterError(f"{option} {text}: expected name=value")
    return name, value


@app.command()
def doctor() -> None:
    """Say what this installation finds on this machine."""
    from gpucalcium.backend import doctor as examination

    print(examination.report())


def _read_params(path: Path) -> dict[str, Any]:
    from gpucalcium.cnmf.params_convert import read_json

    return dict(read_json(path))


def _report(results: Results, seconds: dict[str, float] | Any) -> None:
    """Time of each stage, and where the files are, on stdout."""
    print(
        f"\n{results.name}: {results.frames:,} frames of {results.dims[0]}x{results.dims[1]} px on {results.device}"
    )
    for stage, duration in [*seconds.items(), ("total", sum(seconds.values()))]:
        print(f"  {stage:<18}{duration:8.2f} s  {results.frames / max(duration, 1e-9):10,.0f} frames/s")
    for note in results.notes:
        print(f"note: {note}")
    print(f"{len(results.accepted)} cells, {len(results.rejected)} components rejected")
    if results.activity is not None:
        print(
            f"active in {100 * results.activity.raster.mean():.1f} % of frames, by {results.activity.classifier}"
        )
    print(f"results: {results.output}/results.hdf5, report.html, figures/")


def _score(results: Results) -> None:
    """What a simulation says about the result; the last line ends with F1."""
    match, registration, truth = results.match, results.registration, results.truth
    if match is None or registration is None or truth is None:
        return
    error = registration.shifts - truth.shifts
    error -= error.mean(axis=0)
    print(f"shifts: {(error**2).mean() ** 0.5:.3f} px rms from the truth")
    print(
        f"cells: {len(match.found)} of {match.n_truth} true ones found, {len(match.spurious)} spurious, "
        f"{len(match.uncounted)} cut by the border not counted"
    )
    print(f"traces: median correlation with the truth {results.median_trace_correlation():.3f}")
    print(f"precision {match.precision:.2f}  recall {match.recall:.2f}  F1 {match.f1:.2f}")
