"""What a user installs: the wheel holds every kernel, an editable install finds them, importing is light."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT_BUDGET_S = 0.5
FORBIDDEN = ("cupy", "torch", "matplotlib", "numba", "scipy", "sklearn", "skimage")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_wheel_is_pure_and_holds_every_kernel_and_data_file(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    kernels = {f"gpucalcium/_kernels/{path.name}" for path in (ROOT / "kernels").iterdir()}
    assert kernels - inside == set()
    data = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "gpucalcium").rglob("*")
        if p.suffix in {".toml", ".html", ".pyi"}
    }
    assert data - inside == set()
    assert "gpucalcium/py.typed" in inside
    assert not any("test" in Path(name).parts for name in inside)


def test_installed_wheel_finds_its_kernels(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from gpucalcium.backend.cuda import _source; print(_source.kernel_folder())"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path), "PATH": ""}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert Path(found.stdout.strip()) == tmp_path / "gpucalcium" / "_kernels"


def test_editable_install_finds_the_kernels_beside_the_package():
    from gpucalcium.backend.cuda import _source

    assert _source.kernel_folder() == ROOT / "kernels"


def test_importing_is_light_and_quick():
    code = (
        "import time; start = time.perf_counter(); import gpucalcium; taken = time.perf_counter() - start\n"
        f"import json, sys; print(json.dumps([taken, [m for m in {FORBIDDEN} if m in sys.modules]]))"
    )
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
        )
        for _ in range(3)
    ]
    assert runs[0][1] == [], "heavy packages are imported when they are first needed"
    assert min(taken for taken, _ in runs) < IMPORT_BUDGET_S


def test_every_public_name_loads():
    import gpucalcium

    assert gpucalcium.__all__
    for name in gpucalcium.__all__:
        assert getattr(gpucalcium, name) is not None
        assert name in dir(gpucalcium)
