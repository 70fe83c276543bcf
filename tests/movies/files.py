"""Files of every format for the tests, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile


def tiff(path: Path, movie: np.ndarray, **options) -> Path:
    tifffile.imwrite(path, movie, photometric="minisblack", **options)
    return path


def pages(path: Path, movie: np.ndarray, **options) -> Path:
    """A TIFF file whose pages do not lie one behind the other."""
    with tifffile.TiffWriter(path) as writer:
        for number, frame in enumerate(movie):
            writer.write(
                frame,
                photometric="minisblack",
                contiguous=False,
                description=f"frame {number}" * (number + 1),
                **options,
            )
    return path


def hdf5(path: Path, movie: np.ndarray, name: str = "mov", **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=movie, **options)
    return path


def npy(path: Path, movie: np.ndarray) -> Path:
    np.save(path, movie)
    return path


def mmap(folder: Path, movie: np.ndarray, order: str, base: str = "film", tail: str = "") -> Path:
    """A memory map as other programs write it."""
    d1, d2, d3 = (*movie.shape[1:], 1)[:3]
    path = folder / f"{base}_d1_{d1}_d2_{d2}_d3_{d3}_order_{order}_frames_{len(movie)}{tail}.mmap"
    pixels_by_time = movie.astype(np.float32).reshape(len(movie), -1, order="F").T
    path.write_bytes(pixels_by_time.tobytes(order))
    return path


def npz(path: Path, movie: np.ndarray, **also) -> Path:
    np.savez(path, input_arr=movie, **also)
    return path


def zlib_npz(path: Path, movie: np.ndarray) -> Path:
    np.savez_compressed(path, input_arr=movie, fr=12.5)
    return path


def mat(path: Path, movie: np.ndarray, name: str = "input_arr", compressed: bool = False, **also) -> Path:
    """Version 5, time last; it knows no float16."""
    values = np.moveaxis(movie, 0, -1)
    scipy.io.savemat(
        path,
        {name: values.astype(np.float32) if values.dtype == np.float16 else values, **also},
        do_compression=compressed,
    )
    return path


def names(folder: Path) -> list[str]:
    """Names of what is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "tif": lambda folder, movie: tiff(folder / "a.tif", movie),
    "bigtiff": lambda folder, movie: tiff(folder / "a.btf", movie, bigtiff=True),
    "big-endian tif": lambda folder, movie: tiff(folder / "a.tiff", movie, byteorder=">"),
    "zlib tif": lambda folder, movie: tiff(folder / "z.tif", movie, compression="zlib"),
    "strips tif": lambda folder, movie: tiff(
        folder / "s.tif", movie, rowsperstrip=2, compression="lzw", predictor=False
    ),
    "pages tif": lambda folder, movie: pages(folder / "p.tif", movie, metadata=None),
    "h5": lambda folder, movie: hdf5(folder / "a.h5", movie),
    "chunked hdf5": lambda folder, movie: hdf5(folder / "c.hdf5", movie, chunks=True, compression="gzip"),
    "npy": lambda folder, movie: npy(folder / "a.npy", movie),
    "Fortran npy": lambda folder, movie: npy(folder / "f.npy", np.asfortranarray(movie)),
    "npz": lambda folder, movie: npz(folder / "a.npz", movie),
    "zlib npz": lambda folder, movie: zlib_npz(folder / "z.npz", movie),
    "mat": lambda folder, movie: mat(folder / "a.mat", movie),
    "zlib mat": lambda folder, movie: mat(folder / "z.mat", movie, compressed=True),
    "mmap F": lambda folder, movie: mmap(folder, movie, "F"),
    "mmap C": lambda folder, movie: mmap(folder, movie, "C"),
}
"""Name of a format -> function (folder, movie) that writes it."""
