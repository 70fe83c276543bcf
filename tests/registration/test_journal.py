"""The record of a run: found again after any end, never wrong, and the finished work is that of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, OutputError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration import journal as module
from gpucalcium.registration.journal import Journal, fingerprint

RNG = np.random.default_rng(0)
SHIFTS = RNG.normal(0, 3, (50, 2)).astype(np.float32)
PEAKS = RNG.uniform(size=50).astype(np.float32)


class Interrupted(Exception):
    """A run that ends early."""


def begin(path, until=30, mark="a"):
    """A run that is broken off after some frames."""
    with pytest.raises(Interrupted), Journal(path, mark) as journal:
        journal.keep("template", SHIFTS)
        for start in range(0, until, 10):
            part = slice(start, start + 10)
            journal.append("rigid", shifts=SHIFTS[part], peak=PEAKS[part])
        raise Interrupted
    return path


# ---------------------------------------------------------------------------- records


def test_what_was_found_is_found_again(tmp_path):
    path = begin(tmp_path / "journal")
    with Journal(path, "a") as journal:
        assert journal.count("rigid") == 30
        assert journal.count("piecewise") == 0
        assert journal.found("piecewise") == {}
        assert_array_equal(journal.found("rigid")["shifts"], SHIFTS[:30])
        assert_array_equal(journal.kept["template"], SHIFTS)
        journal.append("rigid", shifts=SHIFTS[30:], peak=PEAKS[30:])
        for _ in range(2):
            assert_array_equal(journal.found("rigid")["peak"], PEAKS)
    assert not path.exists()


def test_another_run_begins_anew(tmp_path):
    path = begin(tmp_path / "journal")
    with Journal(path, "b") as journal:
        assert journal.count("rigid") == 0
        assert not journal.kept


@given(cut=st.integers(0, 3000))
@settings(deadline=None, max_examples=60)
def test_a_torn_record_is_left_out(tmp_path_factory, cut):
    path = begin(tmp_path_factory.mktemp("j") / "journal")
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data))])
    with pytest.raises(Interrupted), Journal(path, "a") as journal:
        count = journal.count("rigid")
        assert count % 10 == 0
        if count:
            assert_array_equal(journal.found("rigid")["shifts"], SHIFTS[:count])
        journal.append("rigid", shifts=SHIFTS[count:], peak=PEAKS[count:])
        raise Interrupted
    with Journal(path, "a") as journal:
        assert_array_equal(journal.found("rigid")["shifts"], SHIFTS)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=60)
def test_a_flipped_bit_is_noticed(tmp_path_factory, place, bit):
    path = begin(tmp_path_factory.mktemp("j") / "journal")
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    with Journal(path, "a") as journal:
        count = journal.count("rigid")
        if count:
            assert_array_equal(journal.found("rigid")["shifts"], SHIFTS[:count])


@pytest.mark.parametrize("garbage", [b"", b"gpucalcium journal 1\n", b"another file", os.urandom(500)])
def test_what_is_no_journal_is_replaced(tmp_path, garbage):
    path = tmp_path / "journal"
    path.write_bytes(garbage)
    begin(path)
    with Journal(path, "a") as journal:
        assert journal.count("rigid") == 30


def test_arrays_of_any_shape(tmp_path):
    field = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
    flags = np.array([True, False, True, True])
    with pytest.raises(Interrupted), Journal(tmp_path / "j", "a") as journal:
        journal.append("piecewise", field=field[:, ::-1], flags=flags)
        raise Interrupted
    with Journal(tmp_path / "j", "a") as journal:
        found = journal.found("piecewise")
    assert_array_equal(found["field"], field[:, ::-1])
    assert found["flags"].dtype == bool


def test_chunks_that_do_not_fit(tmp_path):
    with Journal(tmp_path / "j", "a") as journal:
        journal.append("rigid", shifts=SHIFTS)
        for wrong in ({"peak": PEAKS}, {"shifts": SHIFTS, "peak": PEAKS[:3]}, {}):
            with pytest.raises(ArrayShapeError, match="stage 'rigid'"):
                journal.append("rigid", **wrong)


def test_two_at_once(tmp_path):
    with Journal(tmp_path / "j", "a"), pytest.raises(OutputError, match="another process"):
        Journal(tmp_path / "j", "a")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "absent" / "j", "a")


# ---------------------------------------------------------------------------- fingerprints


@dataclass(frozen=True)
class Params:
    bound: tuple[int, ...] = (6, 6)
    border: str = "nan"
    filter: np.ndarray | None = None


def test_fingerprints_differ_where_results_may():
    movie = RNG.integers(0, 900, (40, 8, 9)).astype(np.int16)
    source = open_movie(movie)
    brighter = movie.copy()
    brighter[-1, 3, 3] += 1
    marks = [
        fingerprint(source, Params(), None),
        fingerprint(source, Params(bound=(6, 7)), None),
        fingerprint(source, Params(border="min"), None),
        fingerprint(source, Params(filter=SHIFTS), None),
        fingerprint(source, Params(filter=SHIFTS.T), None),
        fingerprint(source, Params(), SHIFTS),
        fingerprint(source, Params(), 1.0),
        fingerprint(source, Params(), 1),
        fingerprint(source, Params(), "1"),
        fingerprint(source, (Params(), None)),
        fingerprint(open_movie(movie[:39]), Params(), None),
        fingerprint(open_movie(movie.astype(np.float32)), Params(), None),
        fingerprint(open_movie(brighter), Params(), None),
    ]
    assert len(set(marks)) == len(marks)
    assert marks[0] == fingerprint(open_movie(movie.copy()), Params(), None)
    with pytest.raises(ParameterError, match="type function"):
        fingerprint(source, fingerprint)


def test_fingerprints_of_files(tmp_path):
    movie = RNG.integers(0, 900, (300, 8, 9)).astype(np.int16)
    np.save(tmp_path / "a.npy", movie)
    before = fingerprint(open_movie(tmp_path / "a.npy"))
    assert before == fingerprint(open_movie(tmp_path / "a.npy"))
    movie[1] = 0  # not a frame that is looked at
    np.save(tmp_path / "a.npy", movie)
    assert before != fingerprint(open_movie(tmp_path / "a.npy"))


def test_devices_have_their_own(on_gpu):
    there = fingerprint(open_movie(SHIFTS[None]))
    with backend.use("cpu"):
        assert there != fingerprint(open_movie(SHIFTS[None]))


# ---------------------------------------------------------------------------- with an output


class SlowDisk:
    """An output that takes note of when it was waited for."""

    def __init__(self, resumed=True):
        self.resumed, self.synced = resumed, 0

    def sync(self):
        self.synced += 10
        return self.synced


def test_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SYNC_SECONDS", 0)
    disk = SlowDisk()
    with pytest.raises(Interrupted), Journal(tmp_path / "j", "a", disk) as journal:
        assert journal.written == 0
        for start in range(50):
            journal.append("rigid", shifts=SHIFTS[start : start + 1])
            time.sleep(0.001)
        raise Interrupted
    assert disk.synced
    for resumed, written in ((True, disk.synced), (False, 0)):
        with pytest.raises(Interrupted), Journal(tmp_path / "j", "a", SlowDisk(resumed)) as journal:
            assert journal.written == written
            assert journal.count("rigid") == 50
            raise Interrupted


def test_what_was_safe_stays_safe(tmp_path, monkeypatch):
    """A run that goes on rewrites frames that were on the disk: an early checkpoint does not undo them."""
    monkeypatch.setattr(module, "SYNC_SECONDS", 0)
    for start in (1000, 0):
        disk = SlowDisk()
        disk.synced = start
        with pytest.raises(Interrupted), Journal(tmp_path / "j", "a", disk) as journal:
            for _ in range(20):
                journal.append("rigid", shifts=SHIFTS[:1])
                time.sleep(0.001)
            raise Interrupted
        assert disk.synced > start
    with Journal(tmp_path / "j", "a", SlowDisk()) as journal:
        assert journal.written > 1000


def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SYNC_SECONDS", 0)

    class Broken(SlowDisk):
        def sync(self):
            raise OSError("the disk went away")

    def run():
        with Journal(tmp_path / "j", "a", Broken()) as journal:
            for start in range(50):
                journal.append("rigid", shifts=SHIFTS[start : start + 1])
                time.sleep(0.001)

    with pytest.raises(OSError, match="went away"):
        run()


RUN = """
import sys, time
import numpy as np
from gpucalcium import backend
from gpucalcium.movies import open_movie
from gpucalcium.registration import journal as module
from gpucalcium.registration.journal import Journal, fingerprint
from gpucalcium.registration.output import open_output

module.SYNC_SECONDS = 0.02
folder, wait = sys.argv[1], float(sys.argv[2])
source = open_movie(folder + "/film.npy")
with (
    open_output(folder + "/out", source.shape, resume=True) as out,
    Journal(__import__("pathlib").Path(folder, "journal"), fingerprint(source), out) as journal,
):
    done = min(journal.written, journal.count("means"))
    print(journal.count("means"), done, flush=True)
    for start in range(done, len(source), 5):
        frames = source.read(slice(start, start + 5))
        if start >= journal.count("means"):
            journal.append("means", mean=frames.mean((1, 2)))
        mean = journal.found("means")["mean"][start : start + 5, None, None]
        out.sink(start, frames + mean.astype("float32"))
        print(start, flush=True)
        time.sleep(wait)
"""


def test_killed_and_resumed(tmp_path):
    """A process that is killed again and again leaves the file of one that was not."""
    film = RNG.integers(0, 900, (400, 20, 16)).astype(np.int16)
    np.save(tmp_path / "film.npy", film)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    root = Path(__file__).parents[2]

    def started(wait):
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(wait)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )

    known = []
    for chunks in (12, 15):
        process = started(0.01)
        known.append(int(process.stdout.readline().split()[0]))
        for _ in range(chunks):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    process = started(0)
    text = process.communicate()[0]
    assert process.returncode == 0
    count, done = map(int, text.splitlines()[0].split())
    assert known[0] == 0
    assert 60 <= known[1] < count < 400
    assert 0 < done <= count
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mmap", ".npy", ".py"]
    expected = film + film.mean((1, 2))[:, None, None].astype(np.float32)
    result = open_movie(next(tmp_path.glob("*.mmap"))).read(slice(None))
    assert_array_equal(result, expected)
