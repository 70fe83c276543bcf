"""Files of recordings in every format that has more to it than an array: video, stores, microscopes' own."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

FRAMES = np.random.default_rng(0).integers(0, 250, (41, 18, 14)).astype(np.uint8)
VOLUMES = np.random.default_rng(1).integers(0, 4000, (6, 7, 5, 3)).astype(np.uint16)


def video(path: Path, frames=FRAMES, codec="ffv1", pixels="gray", fr=20, **options) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fr, options=options)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels
        kind = "gray16le" if frames.dtype == np.uint16 else "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=kind)))
        container.mux(stream.encode())
    return path


def zarred(path: Path, frames=FRAMES, name=None, version=2, **options) -> Path:
    zarr = pytest.importorskip("zarr")
    if name is None:
        array = zarr.create_array(
            path, shape=frames.shape, dtype=frames.dtype, zarr_format=version, **options
        )
    else:
        group = zarr.open_group(path, mode="a", zarr_format=version)
        array = group.create_array(name, shape=frames.shape, dtype=frames.dtype, **options)
    array[:] = frames
    array.attrs.update({"fr": 7.5, "meta_data": json.dumps([{"a": 1}])})
    return path


def java_lz4(values: bytes, block: int = 1000) -> bytes:
    """As LZ4BlockOutputStream of lz4-java: blocks with heads of their own, some as they are, and an empty one."""
    lz4, stream = pytest.importorskip("numcodecs").LZ4(), b""
    for at in range(0, len(values), block):
        part = values[at : at + block]
        packed, method = lz4.encode(part)[4:], 0x20
        if len(packed) >= len(part):
            packed, method = part, 0x10
        stream += struct.pack("<8sBiiI", b"LZ4Block", method, len(packed), len(part), 0) + packed
    return stream + struct.pack("<8sBiiI", b"LZ4Block", 0x10, 0, 0, 0)


def _numcodec(name: str, **options):
    return lambda values: bytes(getattr(pytest.importorskip("numcodecs"), name)(**options).encode(values))


N5_PACKERS = {
    "raw": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "blosc": _numcodec("Blosc", cname="zstd", shuffle=2),
    "zstd": _numcodec("Zstd"),
    "lz4": java_lz4,
}
"""How blocks are packed, by the names that N5 gives it."""


def n5(path: Path, frames=FRAMES, blocks=(8, 5, 6), codec="raw", name="") -> Path:
    """As the format's description says: axes reversed, big-endian, edge blocks cut off."""
    folder = path / name
    folder.mkdir(parents=True)
    pack = N5_PACKERS[codec]
    about = {
        "dimensions": frames.shape[::-1],
        "blockSize": blocks[::-1],
        "dataType": str(frames.dtype),
        "compression": {"type": codec},
    }
    (folder / "attributes.json").write_text(json.dumps(about))
    counts = [-(-n // b) for n, b in zip(frames.shape, blocks, strict=True)]
    for place in product(*map(range, counts)):
        block = frames[tuple(slice(k * b, (k + 1) * b) for k, b in zip(place, blocks, strict=True))]
        file = folder.joinpath(*map(str, place[::-1]))
        file.parent.mkdir(parents=True, exist_ok=True)
        head = struct.pack(f">HH{block.ndim}I", 0, block.ndim, *block.shape[::-1])
        file.write_bytes(head + pack(block.astype(block.dtype.newbyteorder(">")).tobytes()))
    return path


def sbx(path: Path, samples: np.ndarray, **info) -> Path:
    """Scanbox: `samples` (frame, plane, row, column, channel) of what was seen; stored inverted."""
    (65535 - samples).astype("<u2").tofile(path)
    about = {"scanbox_version": 2, "sz": samples.shape[2:4], "resfreq": 7930.0, "scanmode": 1} | info
    scipy.io.savemat(path.with_suffix(".mat"), {"info": {k: v for k, v in about.items() if v is not None}})
    return path


def suite2p(folder: Path, frames=FRAMES) -> Path:
    frames.astype("<i2").tofile(folder / "data.bin")
    (folder / "ops.json").write_text(
        json.dumps({"Ly": frames.shape[1], "Lx": frames.shape[2], "nframes": len(frames), "fs": 11})
    )
    return folder / "data.bin"


def matlab73(path: Path, frames=FRAMES) -> Path:
    """As MATLAB writes (rows, columns, time): reversed in HDF5, and marked."""
    with h5py.File(path, "w") as file:
        file["Y"] = frames.transpose(0, *range(frames.ndim - 1, 0, -1))
        file["Y"].attrs["MATLAB_class"] = np.bytes_(str(frames.dtype))
    return path


def nwb(path: Path, frames=FRAMES, where="acquisition/TwoPhotonSeries") -> Path:
    with h5py.File(path, "w") as file:
        file[f"{where}/data"] = frames
        file[f"{where}/starting_time"] = 2.5
        file[f"{where}/starting_time"].attrs["rate"] = 15.0
        file["identifier"] = "x"
    return path


WRITERS = {
    "ffv1 avi": lambda folder: video(folder / "a.avi"),
    "raw avi": lambda folder: video(folder / "r.avi", codec="rawvideo"),
    "ffv1 mkv": lambda folder: video(folder / "a.mkv"),
    "ffv1 mkv, deep": lambda folder: video(
        folder / "d.mkv", FRAMES.astype(np.uint16) * 250, pixels="gray16le"
    ),
    "lossless mp4": lambda folder: video(folder / "a.mp4", codec="libx264", pixels="yuvj420p", qp="0"),
    "lossless avi, frames out of order": lambda folder: video(
        folder / "b.avi", codec="libx264", pixels="yuvj420p", qp="0", bf="2"
    ),
    "zarr 2": lambda folder: zarred(folder / "a.zarr", chunks=(8, 5, 6)),
    "zarr 3": lambda folder: zarred(folder / "b.zarr", version=3, chunks=(8, 5, 6)),
    "zarr group": lambda folder: zarred(folder / "c.zarr", name="mov", chunks=(41, 18, 14)),
    "n5": lambda folder: n5(folder / "a.n5"),
    "gzip n5": lambda folder: n5(folder / "b.n5", codec="gzip", name="mov"),
    "sbx": lambda folder: sbx(folder / "a.sbx", FRAMES[:, None, :, :, None].astype(np.uint16)),
    "suite2p": suite2p,
    "mat 7.3": lambda folder: matlab73(folder / "a.mat"),
    "nwb": lambda folder: nwb(folder / "a.nwb"),
}
OPTIONS = {"nwb": {"var_name_hdf5": "TwoPhotonSeries"}}
"""What `open_movie` must be told beside the path."""
