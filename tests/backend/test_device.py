"""The probe, the choice and the budget, with stand-ins for every way a GPU can be missing."""

import logging
import sys
import types

import pytest

from gpucalcium import backend
from gpucalcium.backend import device
from gpucalcium.errors import GpuUnavailable, ParameterError


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        super().__init__(f"cudaError {status}")
        self.status = status


def fake_cupy(count=1, status=None, driver=0, capability=(9, 0), nvrtc=True):
    """A module with just what the probe asks for."""

    def get_device_count():
        if status is not None:
            raise CUDARuntimeError(status)
        return count

    def get_version():
        if not nvrtc:
            raise RuntimeError("libnvrtc.so: cannot open shared object file")
        return (13, 0)

    major, minor = capability
    properties = {"name": b"Fake GPU", "totalGlobalMem": 8 << 30, "major": major, "minor": minor}
    runtime = types.SimpleNamespace(
        getDeviceCount=get_device_count,
        getDeviceProperties=lambda index: properties,
        driverGetVersion=lambda: driver,
        CUDARuntimeError=CUDARuntimeError,
    )
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0"
    module.ndarray = type("ndarray", (), {})
    module.cuda = types.SimpleNamespace(runtime=runtime, nvrtc=types.SimpleNamespace(getVersion=get_version))
    return module


@pytest.fixture
def with_cupy(monkeypatch):
    """Puts a module in CuPy's place and forgets what the probe found before, and after."""

    def install(module):
        monkeypatch.setitem(sys.modules, "cupy", module)
        device.probe.cache_clear()

    monkeypatch.delenv("GPUCALCIUM_DEVICE", raising=False)
    monkeypatch.setattr(device, "_choice", device._Choice())
    yield install
    device.probe.cache_clear()


@pytest.mark.parametrize(
    ("cupy", "state", "words"),
    [
        (fake_cupy(nvrtc=False), "broken", "does not load .*libnvrtc.*pip install --force-reinstall"),
        (fake_cupy(status=35), "no driver", "no NVIDIA driver answers.*Install a driver"),
        (fake_cupy(status=100), "no device", "no NVIDIA GPU is visible.*CUDA_VISIBLE_DEVICES"),
        (fake_cupy(count=0), "no device", "no NVIDIA GPU is visible"),
        (fake_cupy(status=35, driver=11040), "too old", r"driver is for CUDA 11\.4.*Update the driver"),
        (fake_cupy(capability=(6, 1)), "too old", r"Fake GPU is older than compute capability 7\.5"),
    ],
)
def test_every_failure_is_named_with_its_mend(with_cupy, cupy, state, words):
    with_cupy(cupy)
    assert device.probe().state.value == state
    with pytest.raises(GpuUnavailable, match=rf"device='cuda' was asked for \({state}\): .*{words}"):
        backend.use("cuda")
    assert backend.active().kind == "cpu", "auto falls back"


def test_cupy_not_installed(with_cupy, monkeypatch):
    with_cupy(None)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert device.probe().state is device.State.NOT_INSTALLED
    with pytest.raises(GpuUnavailable, match=r"not installed\): .*pip install 'gpucalcium\[cuda12\]'"):
        backend.use("cuda")


def test_ready_gpu_is_taken_by_auto(with_cupy):
    with_cupy(fake_cupy(count=2))
    assert (backend.active().kind, backend.active().index) == ("cuda", 0)
    with backend.use("cuda:1") as chosen:
        assert chosen.index == 1
        assert backend.active() == chosen
    with pytest.raises(GpuUnavailable, match="this machine has cuda:0, cuda:1"):
        backend.use("cuda:7")


def test_fallback_is_said_once_with_its_reason(with_cupy, caplog):
    with_cupy(fake_cupy(status=100))
    with caplog.at_level(logging.INFO, "gpucalcium"):
        backend.active()
        backend.active()
    assert [
        r.message for r in caplog.records if "working on the CPU" in r.message and "nvidia-smi" in r.message
    ]
    assert len(caplog.records) == 1


def test_use_is_a_setter_and_a_context(with_cupy):
    with_cupy(fake_cupy())
    backend.use("cpu")
    assert backend.active().kind == "cpu"
    with backend.use("cuda"):
        assert backend.active().kind == "cuda"
        with backend.use("cpu"):
            assert backend.active().kind == "cpu"
        assert backend.active().kind == "cuda"
    assert backend.active().kind == "cpu"


def test_failed_use_leaves_the_choice_as_it_was(with_cupy):
    with_cupy(fake_cupy(status=100))
    backend.use("cpu")
    with pytest.raises(GpuUnavailable):
        backend.use("cuda")
    assert backend.active().kind == "cpu"


def test_variable_chooses_unless_use_does(with_cupy, monkeypatch):
    with_cupy(fake_cupy())
    monkeypatch.setenv("GPUCALCIUM_DEVICE", "cpu")
    assert backend.active().kind == "cpu"
    with backend.use("cuda"):
        assert backend.active().kind == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_unknown_device_name(name):
    with pytest.raises(ParameterError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:1'"):
        backend.use(name)


def test_budget_follows_setting_and_limit(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_MEMORY", "1GiB")
    cpu = device.cpu()
    assert backend.budget(cpu) == 1 << 30
    with backend.limit(memory="10MiB"):
        assert backend.budget(cpu) == 10 << 20
        with backend.limit(chunk_frames=7):
            assert backend.chunk_frames() == 7
            assert backend.budget(cpu) == 10 << 20, "an inner limit keeps what it does not set"
        assert backend.chunk_frames() is None
    assert backend.budget(cpu) == 1 << 30
    assert backend.budget(device.Device("cuda", 0, "small", 1000)) == 1000


def test_limit_is_lifted_after_an_error():
    with pytest.raises(ZeroDivisionError), backend.limit(chunk_frames=3):
        raise ZeroDivisionError
    assert backend.chunk_frames() is None


@pytest.mark.parametrize("bad", [{"chunk_frames": 0}, {"memory": "none"}])
def test_bad_limit(bad):
    with pytest.raises(ParameterError), backend.limit(**bad):
        pass


def test_threads_setting(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "3")
    assert backend.threads() == 3
    monkeypatch.delenv("GPUCALCIUM_THREADS")
    assert backend.threads() >= 1
