"""Chunks of frames: all of them, in order, read ahead, bounded, and without a thread left over."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.backend.stream import AHEAD, BUFFERS
from gpucalcium.errors import ArrayTypeError, MemoryBudgetError, ParameterError
from tests.wings import wings_present

SHAPE = (53, 7, 5)


class Frames:
    """A source outside of memory that counts what is asked of it."""

    def __init__(self, shape=SHAPE, dtype="uint16", fails_at=None, name="film.tif"):
        self.movie = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
        self.shape, self.dtype, self.name = self.movie.shape, self.movie.dtype, name
        self.fails_at = fails_at
        self.reads = []

    def __len__(self):
        return len(self.movie)

    def read(self, frames, out=None):
        self.reads.append(frames)
        if self.fails_at is not None and frames.stop > self.fails_at:
            raise OSError("the disk went away")
        if out is None:
            return self.movie[frames].copy()
        np.copyto(out, self.movie[frames])
        return out


class Held(Frames):
    """A source in memory."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def read(self, frames, out=None):
        raise AssertionError("frames in memory need not be read")


class Brightened(Frames):
    """Each frame of another source plus its number, made where the frames are."""

    working = 4

    def __init__(self, source):
        self.made_from = source
        self.shape, self.dtype, self.devices = source.shape, np.dtype("float32"), set()

    def __len__(self):
        return len(self.made_from)

    def make(self, chunk, frames):
        xp = backend.arrays.xp(chunk)
        self.devices.add("cuda" if backend.is_cupy(chunk) else "cpu")
        return chunk.astype("float32") + xp.asarray(np.array(frames, "float32"))[:, None, None]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def collected(source, **options):
    return [backend.to_numpy(chunk).copy() for chunk in backend.stream(source, **options)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 52, 53, 1000])
def test_every_chunking_gives_the_same_frames(wing, chunk):
    source = Frames()
    with backend.limit(chunk_frames=chunk):
        chunks = collected(source)
    assert_array_equal(np.concatenate(chunks), source.movie)
    assert {len(c) for c in chunks[:-1]} <= {chunk}
    assert chunks[0].dtype == np.uint16


@pytest.mark.parametrize("overlap", [1, 2, 9])
@pytest.mark.parametrize("chunk", [1, 4, 53])
def test_chunks_repeat_the_end_of_the_one_before(wing, overlap, chunk):
    source = Frames()
    with backend.limit(chunk_frames=chunk):
        chunks = collected(source, overlap=overlap)
    for before, after in pairwise(chunks):
        assert_array_equal(after[:overlap], before[-overlap:])
        assert len(after) > overlap
    joined = np.concatenate([chunks[0], *(c[overlap:] for c in chunks[1:])])
    assert_array_equal(joined, source.movie)
    assert len({len(c) for c in chunks}) <= 2


@given(
    frames=st.slices(SHAPE[0]).filter(lambda s: s.step is None or s.step > 0),
    chunk=st.integers(1, 60),
    overlap=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_any_part_of_a_movie(frames, chunk, overlap):
    source = Frames()
    for wing in wings_present():
        with wing.chosen(), backend.limit(chunk_frames=chunk):
            chunks = collected(source, frames=frames, overlap=overlap)
        joined = np.concatenate([source.movie[:0], *chunks[:1], *(c[overlap:] for c in chunks[1:])])
        assert_array_equal(joined, source.movie[frames])


@pytest.mark.parametrize("frames", [slice(None), slice(4, 40, 3), slice(7, 8), slice(5, 5)])
@pytest.mark.parametrize("overlap", [0, 2])
def test_frames_made_from_others_are_made_on_the_device(wing, frames, overlap):
    source = Brightened(Frames())
    with backend.limit(chunk_frames=4):
        chunks = collected(source, frames=frames, overlap=overlap)
    joined = np.concatenate([np.empty((0, *SHAPE[1:])), *chunks[:1], *(c[overlap:] for c in chunks[1:])])
    assert_array_equal(joined, (source.made_from.movie + np.arange(SHAPE[0])[:, None, None])[frames])
    assert source.devices <= {wing.device}


def test_chunks_are_of_the_wing_and_contiguous(wing):
    for chunk in backend.stream(Frames()):
        assert backend.is_cupy(chunk) == (wing.device == "cuda")
        assert chunk.flags.c_contiguous


def test_kept_chunks_stay_as_they_were(wing):
    source = Frames()
    with backend.limit(chunk_frames=4):
        kept = list(backend.stream(source))
        views = [chunk[1:2] for chunk in backend.stream(source)]
    assert_array_equal(np.concatenate([backend.to_numpy(c) for c in kept]), source.movie)
    starts = range(1, SHAPE[0], 4)
    assert_array_equal(np.concatenate([backend.to_numpy(v) for v in views]), source.movie[list(starts)])


def test_frames_in_memory_are_not_copied():
    movie = np.arange(24, dtype=np.int16).reshape(6, 2, 2)
    for chunk in backend.stream(Held(movie)):
        assert np.shares_memory(chunk, movie)


def test_frames_on_a_gpu_stay_there_whatever_device_is_active(on_gpu):
    movie = on_gpu.put(np.arange(24, dtype=np.int16).reshape(6, 2, 2))
    with backend.use("cpu"):
        assert all(backend.is_cupy(chunk) for chunk in backend.stream(Held(movie)))


def test_reads_ahead_but_no_further(wing):
    source = Frames()
    with backend.limit(chunk_frames=2):
        chunks = backend.stream(source)
        assert source.reads == []
        for taken in range(1, 5):
            next(chunks)
            time.sleep(0.05)
            ahead = len(source.reads) - taken
            assert 1 <= ahead <= AHEAD + 1
        chunks.close()


def test_memory_in_flight_stays_within_the_budget(on_gpu):
    import cupy

    source = Frames((400, 32, 32), "float32")
    budget = 256 << 10
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    used = pool.used_bytes()
    with backend.limit(memory=budget):
        for chunk in backend.stream(source, working=4096):
            assert pool.used_bytes() - used + len(chunk) * 4096 <= budget
    assert len(source.reads) > 10


def test_chunk_lengths_come_from_the_ladder():
    frame = 7 * 5 * 2
    for budget, expected in [(frame * 3, 1), (frame * 3 * 7, 4), (frame * 3 * 16, 16), (frame * 3000, 512)]:
        source = Frames((600, 7, 5))
        with backend.limit(memory=budget):
            assert len(next(iter(backend.stream(source)))) == expected


def test_a_frame_that_does_not_fit_says_what_would(wing):
    with (
        backend.limit(memory=100),
        pytest.raises(MemoryBudgetError, match=r"film\.tif.*need.*GPUCALCIUM_MEMORY"),
    ):
        backend.stream(Frames())


def test_an_error_while_reading_names_file_and_frames(wing):
    with backend.limit(chunk_frames=10), pytest.raises(OSError, match="disk went away") as caught:
        for seen, _ in enumerate(backend.stream(Frames(fails_at=30)), 1):
            assert seen <= 3
    assert "frames 30 to 39 of film.tif" in "".join(caught.value.__notes__)


def test_leaving_early_stops_the_threads(wing):
    with backend.limit(chunk_frames=3):
        for _ in backend.stream(Frames()):
            break
        with pytest.raises(ZeroDivisionError):
            for _ in backend.stream(Frames()):
                _ = 1 / 0


def test_nothing_to_stream(wing):
    assert list(backend.stream(Frames(), frames=slice(5, 5))) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": slice(None, None, -1)}, "step must be positive"),
        ({"overlap": -1}, "neither can be negative"),
        ({"working": -1}, "neither can be negative"),
    ],
)
def test_wrong_options_are_refused_at_once(options, text):
    with pytest.raises(ParameterError, match=text):
        backend.stream(Frames(), **options)


def test_an_array_is_sent_to_open_movie():
    with pytest.raises(ArrayTypeError, match="open_movie"):
        backend.stream(np.zeros((3, 2, 2)))


# ---------------------------------------------------------------------------- pipe


@pytest.mark.parametrize("chunk", [1, 4, 53])
def test_pipe_writes_everything_in_order(wing, chunk):
    source, out, starts = Frames(), np.zeros(SHAPE, np.int32), []

    def sink(start, doubled, sums):
        assert isinstance(doubled, np.ndarray)
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(0.001)
        starts.append(start)
        out[start : start + len(doubled)] = doubled
        assert_array_equal(sums, source.movie[start : start + len(doubled)].sum(axis=(1, 2), dtype=np.int64))

    with backend.limit(chunk_frames=chunk):
        backend.pipe(source, lambda x: (x.astype(np.int32) * 2, x.sum(axis=(1, 2), dtype=np.int64)), sink)
    assert starts == sorted(starts)
    assert_array_equal(out, 2 * source.movie.astype(np.int32))


def test_pipe_names_frames_as_the_movie_does(wing):
    starts = []
    with backend.limit(chunk_frames=3):
        backend.pipe(Frames(), lambda x: x, lambda start, x: starts.append(start), frames=slice(10, 30, 2))
    assert starts == [10, 16, 22, 28]


@pytest.mark.parametrize("who", ["source", "step", "sink"])
def test_pipe_raises_what_went_wrong(wing, who):
    def step(x):
        if who == "step":
            raise KeyError("step")
        return x

    def sink(start, x):
        if who == "sink" and start > 8:
            raise KeyError("sink")

    source = Frames(fails_at=20 if who == "source" else None)
    with backend.limit(chunk_frames=4), pytest.raises((KeyError, OSError)) as caught:
        backend.pipe(source, step, sink)
    if who == "sink":
        assert caught.value.__notes__ == ["while writing the results that start with frame 12"]


# ---------------------------------------------------------------------------- out of memory


def test_a_step_that_runs_out_of_memory_gets_halves(wing):
    movie = wing.put(np.arange(13 * 4, dtype=np.float32).reshape(13, 2, 2))
    lengths = []

    def step(frames):
        lengths.append(len(frames))
        if len(frames) > 3:
            raise MemoryError("no room")
        return backend.to_numpy(frames)

    results = backend.retry_halved(step, movie)
    assert_array_equal(np.concatenate(results), backend.to_numpy(movie))
    assert [len(r) for r in results] == [3, 3, 3, 2, 2]
    assert lengths[0] == 13


def test_halving_on_a_gpu_whose_pool_is_limited(on_gpu):
    import cupy

    movie = on_gpu.put(np.arange(64 * 32 * 32, dtype=np.float32).reshape(64, 32, 32))
    pool = cupy.get_default_memory_pool()
    pool.set_limit(pool.used_bytes() + movie.nbytes // 3)
    try:
        results = backend.retry_halved(lambda frames: (frames + 1).get(), movie)
    finally:
        pool.set_limit(size=0)
    assert len(results) == 4
    assert_array_equal(np.concatenate(results), backend.to_numpy(movie) + 1)


def test_one_frame_that_does_not_fit(wing):
    def step(frames):
        raise MemoryError("no room for 17 bytes")

    with pytest.raises(MemoryBudgetError, match=r"\(2, 2\).*17 bytes.*GPUCALCIUM_MEMORY"):
        backend.retry_halved(step, wing.put(np.zeros((5, 2, 2), np.float32)))


def test_other_errors_of_a_step_are_not_hidden(wing):
    calls = []
    with pytest.raises(ValueError, match="mine"):
        backend.retry_halved(lambda f: calls.append(f) or int("mine"), wing.put(np.zeros((4, 2, 2))))
    assert len(calls) == 1


def test_a_full_gpu_is_an_error_with_the_setting(on_gpu):
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.set_limit(pool.used_bytes() + 1000)
    try:
        with pytest.raises(MemoryBudgetError, match="GPUCALCIUM_MEMORY"):
            list(backend.stream(Frames()))
    finally:
        pool.set_limit(size=0)


# ---------------------------------------------------------------------------- hold


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_hold_gives_the_whole_movie(wing, dtype):
    source = Frames()
    with backend.limit(chunk_frames=6):
        held = backend.hold(source, dtype)
    assert held.dtype == (dtype or np.uint16)
    assert backend.is_cupy(held) == (wing.device == "cuda")
    assert_array_equal(backend.to_numpy(held), source.movie)


def test_hold_refuses_what_is_larger_than_the_budget(wing):
    with backend.limit(memory="2KiB"), pytest.raises(MemoryBudgetError, match=r"film\.tif takes 3\.8 KiB"):
        backend.hold(Frames())


def test_hold_hands_over_what_is_in_memory():
    movie = np.zeros((3, 2, 2))
    assert np.shares_memory(backend.hold(Held(movie)), movie)


# ---------------------------------------------------------------------------- order of copies and kernels


class LateStreams:
    """Lets copies of the emulated GPU happen only when something waits for them, in the order of the stream.

    A chunk used before its copy was waited for holds garbage then; so does a pinned buffer that was filled
    again before the copy from it was done.
    """

    def __init__(self, monkeypatch):
        import cupy

        self.copies, self.done_up_to = {}, {}
        late = self

        def record(stream, event=None):
            event = event or cupy.cuda.Event()
            event.after = (id(stream), len(late.copies.get(id(stream), ())))
            return event

        def wait(event):
            stream, count = getattr(event, "after", (None, 0))
            copies = late.copies.get(stream, [])
            for k in range(count):
                if copies[k] is not None:
                    copies[k]()
                    copies[k] = None

        def copy(stream, action):
            late.copies.setdefault(id(stream), []).append(action)

        instant_set, instant_get = cupy.ndarray.set, cupy.ndarray.get

        def late_set(array, host, stream=None):
            if stream is None:
                return instant_set(array, host)
            return copy(stream, lambda: instant_set(array, host))

        def late_get(array, stream=None, order="C", out=None, blocking=True):
            if stream is None or blocking:
                return instant_get(array, stream, order, out)
            copy(stream, lambda: instant_get(array, None, order, out))
            return out

        monkeypatch.setattr(cupy.cuda.Stream, "record", record)
        monkeypatch.setattr(cupy.cuda.Stream, "wait_event", lambda stream, event: wait(event))
        monkeypatch.setattr(cupy.cuda.Stream, "synchronize", lambda stream: wait(record(stream)))
        monkeypatch.setattr(cupy.cuda.Event, "synchronize", wait)
        monkeypatch.setattr(cupy.ndarray, "set", late_set)
        monkeypatch.setattr(cupy.ndarray, "get", late_get)


def test_copies_are_waited_for_before_their_data_is_used(on_gpu, monkeypatch):
    if on_gpu.name != "emulated":
        pytest.skip("a real GPU orders its streams itself")
    LateStreams(monkeypatch)
    source, out = Frames(), np.zeros(SHAPE, np.uint16)

    def sink(start, frames):
        out[start : start + len(frames)] = frames

    with backend.limit(chunk_frames=3):
        backend.pipe(source, lambda x: x + np.uint16(1), sink)
        streamed = [chunk.get() for chunk in backend.stream(source)]
    assert_array_equal(out, source.movie + 1)
    assert_array_equal(np.concatenate(streamed), source.movie)


def test_a_pinned_buffer_is_filled_again_only_after_its_copy(on_gpu, monkeypatch):
    import cupy

    waits = []
    monkeypatch.setattr(
        cupy.cuda.Event, "synchronize", lambda event: waits.append(threading.current_thread().name)
    )
    with backend.limit(chunk_frames=3):
        chunks = sum(1 for _ in backend.stream(Frames()))
    assert sum("gpucalcium-read" in name for name in waits) == chunks - BUFFERS


def test_hold_leaves_room_for_its_chunks(on_gpu):
    import cupy

    source = Frames((300, 16, 16), "float32")
    frame, pool = 16 * 16 * 4, cupy.get_default_memory_pool()
    budget = 310 * frame
    pool.set_limit(pool.used_bytes() + budget)
    try:
        with backend.limit(memory=budget):
            assert_array_equal(backend.hold(source).get(), source.movie)
    finally:
        pool.set_limit(size=0)
    with backend.limit(memory=302 * frame), pytest.raises(MemoryBudgetError, match="budget"):
        backend.hold(source)
