"""The command as a user meets it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium import __version__
from gpucalcium.cli import main
from gpucalcium.movies import open_movie
from gpucalcium.simulate import two_photon
from tests.movies import recordings


@pytest.fixture(scope="module")
def movie():
    return two_photon(150, (48, 50), 5, seed=1).movie


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch):
    """Nobody looks at these figures: drawing them at printing resolution would take most of the time."""
    monkeypatch.setattr("gpucalcium.plotting.style.DOTS_PER_INCH", 40)
    monkeypatch.setattr("gpucalcium.report.page.SCREEN_DOTS_PER_INCH", 40)


@pytest.fixture
def gpucalcium(capsys):
    """Run the command in this process: (exit status, stdout, stderr)."""

    def call(*words):
        status = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            status = end.code or 0
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_version_and_help(gpucalcium):
    assert gpucalcium("--version") == (0, f"{__version__}\n", "")
    status, out, _ = gpucalcium("--help")
    assert status == 0
    assert all(command in out for command in ("demo", "run", "info", "convert", "doctor"))


def test_doctor_names_the_version(gpucalcium):
    status, out, _ = gpucalcium("doctor")
    assert status == 0
    assert __version__ in out


def test_demo_scores_itself(gpucalcium, tmp_path):
    status, out, err = gpucalcium(
        "demo", "--output", tmp_path / "out", "--frames", 300, "--size", 64, "--device", "cpu"
    )
    assert status == 0
    last = out.strip().splitlines()[-1]
    assert re.search(r"precision \d\.\d\d  recall \d\.\d\d  F1 \d\.\d\d$", last)
    assert float(last.split()[-1]) >= 0.9
    for stage in (
        "simulation",
        "motion correction",
        "correlation image",
        "extraction",
        "quality",
        "figures",
        "report",
    ):
        assert re.search(rf"{stage} +100% \|", err), stage
        assert re.search(rf"{stage} +\d+\.\d\d s", out), stage
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.hdf5", "report.html", "figures"}


@pytest.mark.parametrize("name", ["movie.tif", "movie.npy", "movie.npz", "movie.h5"])
def test_run_reads_every_kind_of_file(gpucalcium, tmp_path, movie, name):
    path = tmp_path / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, movie)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["recording"] = movie
    else:
        {".npy": np.save, ".npz": np.savez}[path.suffix](path, movie)
    words = ("--frame-rate", 20, "--components", 4, "--no-refit", "--no-motion-correct", "--device", "cpu")
    status, out, _ = gpucalcium("run", path, "-o", tmp_path / "out", *words)
    assert status == 0
    assert re.search(r"^\d+ cells, \d+ components rejected$", out, re.MULTILINE)
    assert (tmp_path / "out" / "report.html").exists()


def test_run_chains_files_and_takes_parameters(gpucalcium, tmp_path, movie):
    parts = [tmp_path / f"part{k}.tif" for k in range(2)]
    for path, frames in zip(parts, np.array_split(movie, 2), strict=True):
        tifffile.imwrite(path, frames)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"init": {"K": 3, "nb": 1}}))
    words = ("--params", settings, "--no-motion-correct", "--no-refit", "--device", "cpu")
    status, out, _ = gpucalcium("run", *parts, "-o", tmp_path / "out", *words)
    assert status == 0
    assert "150 frames of 48x50 px" in out
    with h5py.File(tmp_path / "out" / "results.hdf5") as file:
        assert file["params/init/K"][()] == 3
        assert file["estimates/f"].shape[0] == 1


def test_info_tells_planes_apart(gpucalcium, tmp_path):
    np.savez(tmp_path / "movie.npz", movie=np.zeros((9, 2, 20, 30), np.uint8))
    status, out, _ = gpucalcium("info", tmp_path / "movie.npz")
    assert status == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (facts["frames"], facts["field"], facts["planes"]) == ("9", "20 x 30 px", "2")
    status, out, _ = gpucalcium("info", tmp_path / "movie.npz", "--axes", "TYXZ")
    assert "9" in out
    assert "20 x 30" not in out


def test_info_says_what_a_program_needs(gpucalcium, tmp_path, movie):
    tifffile.imwrite(tmp_path / "movie.tif", movie, compression="zlib")
    status, out, _ = gpucalcium("info", tmp_path / "movie.tif", "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["frames"], facts["rows"], facts["columns"], facts["planes"]) == (150, 48, 50, 1)
    assert (facts["dtype"], facts["bytes"]) == (str(movie.dtype), movie.nbytes)
    assert facts["bytes_on_disk"] == (tmp_path / "movie.tif").stat().st_size
    assert facts["compression"] == "adobe_deflate"
    assert facts["meta_data"] == []


def test_info_of_one_channel(gpucalcium, tmp_path, movie):
    both = np.stack([movie, movie[::-1]], axis=1)
    tifffile.imwrite(tmp_path / "a.tif", both, imagej=True, metadata={"axes": "TCYX", "finterval": 0.08})
    np.save(tmp_path / "a.npy", both.transpose(1, 2, 3, 0))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mov"] = both
        for number, label in enumerate("tcyx"):
            file["mov"].dims[number].label = label
    for name, words in (("a.tif", ()), ("a.h5", ()), ("a.npy", ("--axes", "CYXT"))):
        status, out, _ = gpucalcium("info", tmp_path / name, "--json", "--channel", 1, *words)
        facts = json.loads(out)
        assert status == 0
        assert (facts["frames"], facts["rows"], facts["columns"], facts["planes"]) == (150, 48, 50, 1)
        assert facts["frame_rate"] == (12.5 if name == "a.tif" else None)
        status, out, said = gpucalcium("info", tmp_path / name, "--channel", 2, *words)
        assert (status, out) == (2, "")
        assert "channel=2" in said
        assert "2 channels" in said
    status, _, said = gpucalcium("info", tmp_path / "a.h5")
    assert status == 2
    assert "2 channels: say which with channel=0, 1 ..." in said


def test_info_of_a_video_says_what_its_greys_show(gpucalcium, tmp_path, movie):
    pytest.importorskip("av")
    np.save(tmp_path / "a.npy", movie)
    assert gpucalcium("convert", tmp_path / "a.npy", tmp_path / "a.avi")[0] == 0
    status, out, _ = gpucalcium("info", tmp_path / "a.avi")
    black, white = open_movie(tmp_path / "a.avi").about["levels"]
    assert status == 0
    assert f"grey levels  0 shows {black:g}, 255 shows {white:g}" in out
    assert "grey levels" not in gpucalcium("info", tmp_path / "a.npy")[1]


@pytest.mark.parametrize("codec", ["raw", "gzip", "zstd"])
def test_info_of_n5(gpucalcium, tmp_path, movie, codec):
    recordings.n5(tmp_path / "a.n5", movie, codec=codec, name="mov")
    status, out, said = gpucalcium("info", tmp_path / "a.n5", "--json")
    assert (status, said) == (0, "")
    assert json.loads(out)["compression"] == {"raw": "none"}.get(codec, codec)


@pytest.mark.parametrize(
    ("name", "compression"),
    [("a.npy", "none"), ("a.npz", "zlib"), ("a.h5", "gzip"), ("a.tif", "adobe_deflate"), ("a.nwb", "gzip")],
)
def test_convert_and_info(gpucalcium, tmp_path, movie, name, compression):
    np.save(tmp_path / "movie.npy", movie)
    words = ("--frames", "10:100:3", "--frame-rate", 12.5, "--compress", 3)
    status, out, _ = gpucalcium("convert", tmp_path / "movie.npy", tmp_path / name, *words)
    assert (status, out.strip()) == (0, str(tmp_path / name))
    status, out, _ = gpucalcium("info", tmp_path / name)
    assert status == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["frames"].startswith("30")
    assert facts["field"] == "48 x 50 px"
    assert facts["on"].endswith(f"compression: {compression}")
    assert open_movie(tmp_path / name).read(slice(None)).shape == (30, 48, 50) if name[-1] != "z" else True


def test_convert_one_channel_of_axes_in_another_order(gpucalcium, tmp_path, movie):
    both = np.stack([movie, movie[::-1]], axis=-1)  # T, Y, X, C
    np.save(tmp_path / "both.npy", both.transpose(3, 1, 2, 0))
    words = ("--axes", "CYXT", "--channel", "1")
    assert gpucalcium("convert", tmp_path / "both.npy", tmp_path / "b.tif", *words)[0] == 0
    assert_array_equal(open_movie(tmp_path / "b.tif").read(slice(None)), movie[::-1])


def test_convert_to_a_memory_map_and_back(gpucalcium, tmp_path, movie):
    np.save(tmp_path / "movie.npy", movie)
    _, name, _ = gpucalcium("convert", tmp_path / "movie.npy", tmp_path / "a.mmap", "--order", "C")
    assert gpucalcium("convert", name.strip(), tmp_path / "b.tif", "--imagej")[0] == 0
    assert (tifffile.imread(tmp_path / "b.tif") == movie).all()


def test_convert_network(gpucalcium, tmp_path):
    pytest.importorskip("torch")
    keras = Path(__file__).parent / "data" / "nets"
    weights = ("--weights", keras / "attention_after.h5")
    status, out, _ = gpucalcium(
        "convert-network", keras / "attention_after.json", tmp_path / "net.json", *weights
    )
    assert status == 0
    assert out.split() == [str(tmp_path / "net.json"), str(tmp_path / "net.safetensors")]
    again = gpucalcium("convert-network", keras / "full.h5", tmp_path / "net")
    assert again[0] == 2 and "--overwrite" in again[2]
    assert gpucalcium("convert-network", keras / "full.h5", tmp_path / "net", "--overwrite")[0] == 0
    status, _, err = gpucalcium(
        "convert-network", keras / "full.h5", tmp_path / "b", "--lambda", "no_such=swish"
    )
    assert status == 2 and "no Lambda layer no_such" in err
    status, _, err = gpucalcium("convert-network", keras / "full.h5", tmp_path / "b", "--lambda", "swish")
    assert status == 2 and "name=value" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent.npy", "b.tif"), "not found"),
        (("movie.npy", "b.xyz"), r"Extension Unknown: '\.xyz'"),
        (("movie.npy", "movie.npy"), "is there already.*--overwrite"),
        (("movie.npy", "movie.npy", "--overwrite"), "is the source itself"),
        (("movie.npy", "absent/b.tif"), "there is no folder"),
        (("movie.npy", "b.tif", "--frames", "a:b"), "first:end"),
        (("movie.npy", "b.tif", "--frames", "900:"), "empty"),
        (("movie.npy", "b.mmap", "--order", "X"), "order='X'"),
        (("movie.npy", "b.tif", "--frame-rate", "0"), "fr=0"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(
    gpucalcium, tmp_path, movie, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    np.save("movie.npy", movie)
    status, _, err = gpucalcium("convert", *words)
    assert status == 2
    assert re.search(message, err.strip().splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["movie.npy"]


def truncated(path):
    tifffile.imwrite(path, np.ones((40, 32, 32), np.uint16))
    path.write_bytes(path.read_bytes()[:30_000])


def compressed_and_truncated(path):
    noise = np.random.default_rng(0).integers(0, 9999, (40, 32, 32), np.uint16)
    tifffile.imwrite(path, noise, compression="zlib")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_INPUT = {
    "absent file": ("absent.tif", lambda path: None, "not found"),
    "unknown extension": (
        "movie.xyz",
        lambda path: path.write_bytes(b"1"),
        r"Unknown file type '\.xyz'.*\.tif",
    ),
    "empty file": ("movie.tif", lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "text, not TIFF": ("movie.tif", lambda path: path.write_bytes(b"hello" * 99), "cannot be read as TIFF"),
    "truncated TIFF": ("movie.tif", truncated, "truncated"),
    "truncated compressed TIFF": ("movie.tif", compressed_and_truncated, "truncated|cannot be decoded"),
    "one image": ("movie.npy", lambda path: np.save(path, np.ones((50, 50))), "1 frames; at least 30"),
    "five axes": ("movie.npy", lambda path: np.save(path, np.ones((40, 2, 2, 20, 20))), "5 axes"),
    "no frames": ("movie.npy", lambda path: np.save(path, np.ones((0, 20, 20))), "empty"),
    "all NaN": ("movie.npy", lambda path: np.save(path, np.full((40, 20, 20), np.nan)), "finite"),
    "constant": ("movie.npy", lambda path: np.save(path, np.ones((40, 20, 20))), "nothing is recorded"),
    "complex": ("movie.npy", lambda path: np.save(path, np.ones((40, 20, 20), complex)), "complex128"),
    "objects": ("movie.npy", lambda path: np.save(path, np.array([{}])), "never unpickled"),
    "folder": ("movie.tif", lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_said_in_one_line(gpucalcium, tmp_path, case):
    name, make, message = BAD_INPUT[case]
    make(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    status, _, err = gpucalcium("run", tmp_path / name, "-o", tmp_path / "out", "--device", "cpu")
    last = err.replace("\r", "\n").strip().splitlines()[-1]
    assert status == 2
    assert last.startswith("error: ")
    assert re.search(message, last), last
    assert name in last
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frame-rate", "0"), "frame_rate=0"),
        (("--max-shift", "40"), "max_shifts"),
        (("--axes", "TZYX"), "axes='TZYX'"),
        (("--device", "tpu"), "'tpu'.*'cpu'"),
        (("--params", "absent.json"), "absent.json"),
    ],
)
def test_bad_options_are_said_in_one_line(gpucalcium, tmp_path, movie, words, message):
    np.save(tmp_path / "movie.npy", movie)
    status, _, err = gpucalcium("run", tmp_path / "movie.npy", "-o", tmp_path / "out", *words)
    assert status == 2
    assert re.search(message, err.replace("\r", "\n").strip().splitlines()[-1])
    assert not (tmp_path / "out").exists()


def test_absent_gpu_names_the_reason(gpucalcium, tmp_path, movie, monkeypatch):
    from gpucalcium.backend import device

    none = device.Probe(device.State.NO_DRIVER, "CuPy 14.2 is installed, but no NVIDIA driver answers")
    monkeypatch.setattr(device, "probe", lambda: none)
    np.save(tmp_path / "movie.npy", movie)
    status, _, err = gpucalcium("run", tmp_path / "movie.npy", "-o", tmp_path / "out", "--device", "cuda")
    assert status == 2
    assert "no NVIDIA driver answers" in err
    assert not (tmp_path / "out").exists()


def test_debug_shows_where(gpucalcium, tmp_path):
    status, _, err = gpucalcium("info", tmp_path / "absent.tif", "--debug")
    assert status == 2
    assert "Traceback" in err
    assert "MovieNotFoundError" in err


def test_a_defect_of_ours_is_named_as_one(gpucalcium, monkeypatch):
    from gpucalcium.backend import doctor

    monkeypatch.setattr(doctor, "report", lambda: 1 / 0)
    status, _, err = gpucalcium("doctor")
    assert status == 1
    assert err.startswith("internal error: ZeroDivisionError")
    assert "Traceback" not in err


def test_stopping_leaves_nothing_behind(gpucalcium, tmp_path, movie, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpucalcium.pipeline.summary.figures", stop)
    np.save(tmp_path / "movie.npy", movie)
    status, _, err = gpucalcium(
        "run", tmp_path / "movie.npy", "-o", tmp_path / "out", "--no-refit", "--device", "cpu"
    )
    assert status == 130
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["movie.npy"]
