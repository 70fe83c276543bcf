"""Writing of movies as NWB: one two-photon series among the acquisitions."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpucalcium.backend import FrameSource
from gpucalcium.errors import MissingExtraError, ParameterError
from gpucalcium.movies.save_options import Recording, SaveOptions
from gpucalcium.movies.write_chunked import chunk_shape, placed_chunks

SERIES = "TwoPhotonSeries"
NWB_OPTIONS = frozenset(
    "compress sess_desc identifier imaging_plane_description emission_lambda excitation_lambda indicator location "
    "starting_time experimenter lab_name institution experiment_description session_id unit var_name_hdf5".split()
)


def write_nwb(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """``acquisition/<name>/data``, axes as in the movie; the name is `var_name_hdf5`, or "TwoPhotonSeries".

    The session begins at `start_time`, counted from 1970; metadata are JSON in the comments of the series.

    Raises
    ------
    ParameterError
        Not a movie.
    MissingExtraError
        PyNWB is not installed.
    """
    try:
        from hdmf.backends.hdf5.h5_utils import H5DataIO
        from pynwb import NWBHDF5IO
    except ImportError as err:
        raise MissingExtraError(f"{path.suffix} files need PyNWB: pip install 'gpucalcium[nwb]'") from err
    if len(source.shape) not in (3, 4):
        raise ParameterError(f"a TwoPhotonSeries is (T, d1, d2) or (T, d1, d2, d3), not {source.shape}")
    layout: dict[str, Any] = {}
    if options.compress:
        chunks = chunk_shape(source.shape, source.dtype)
        layout = {"compression": "gzip", "compression_opts": options.compress, "chunks": chunks}
    data = H5DataIO(shape=source.shape, dtype=source.dtype, **layout)
    with NWBHDF5IO(str(path), "w") as file:
        file.write(_session(data, about, options))
        for frames, chunk in placed_chunks(source):
            data.dataset[frames] = chunk


def _session(data: Any, about: Recording, options: SaveOptions) -> Any:
    from pynwb import NWBFile
    from pynwb.ophys import OpticalChannel, TwoPhotonSeries

    session = NWBFile(
        session_description=options.sess_desc,
        identifier=options.identifier,
        session_start_time=datetime.fromtimestamp(about.start_time, UTC),
        experimenter=options.experimenter,
        lab=options.lab_name,
        institution=options.institution,
        experiment_description=options.experiment_description,
        session_id=options.session_id,
    )
    plane = session.create_imaging_plane(
        name="ImagingPlane",
        description=options.imaging_plane_description,
        optical_channel=OpticalChannel(
            name="OpticalChannel", description="fluorescence", emission_lambda=options.emission_lambda
        ),
        device=session.create_device(name="Microscope"),
        excitation_lambda=options.excitation_lambda,
        imaging_rate=about.fr,
        indicator=options.indicator,
        location=options.location,
    )
    known = about.as_attributes()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "(?s).*Length of data does not match"
        )  # filled once the file is there
        series = TwoPhotonSeries(
            name=SERIES if options.var_name_hdf5 == SaveOptions.var_name_hdf5 else options.var_name_hdf5,
            data=data,
            unit=options.unit,
            rate=about.fr,
            starting_time=options.starting_time,
            imaging_plane=plane,
            comments=json.dumps(known),
        )
    session.add_acquisition(series)
    return session
