"""The import hook: what it serves, what it refuses, and scripts that know nothing of it."""

import importlib
import inspect
import subprocess
import sys
import textwrap

import pytest

import gpucalcium
from gpucalcium import accel
from gpucalcium.accel._finder import FINDER
from gpucalcium.cnmf.params import CNMFParams


@pytest.fixture
def served():
    accel.install()
    yield
    accel.uninstall()


def resolve(module, name):
    return getattr(importlib.import_module(module), name)


NAMES = [(module, name) for module, names in FINDER.table.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_of_the_table_stands(served, module, name):
    found = resolve(module, name)
    home, _, attribute = FINDER.table[module][name].partition(":")
    assert found is getattr(importlib.import_module(home), attribute)
    assert isinstance(found, str) or found.__module__.startswith("gpucalcium.")  # texts are of no module
    assert name in dir(importlib.import_module(module))


def test_the_usual_ways_to_import(served):
    namespace = {}
    script = """
        import caiman
        import caiman as cm
        import caiman.source_extraction.cnmf.params
        from caiman.source_extraction import cnmf
        from caiman.source_extraction.cnmf import cnmf as cnmf_module, params
        from caiman.source_extraction.cnmf.params import CNMFParams
        from caiman.motion_correction import MotionCorrect
        from caiman import *
    """
    exec(textwrap.dedent(script), namespace)
    assert namespace["CNMFParams"] is namespace["params"].CNMFParams is CNMFParams
    assert namespace["cnmf"].cnmf is namespace["cnmf_module"]
    assert namespace["cm"].base.movies.load is namespace["load"] is namespace["cm"].load
    assert namespace["cm"].source_extraction.cnmf.cnmf.CNMF is namespace["cnmf_module"].CNMF


def test_what_is_not_there_says_so(served):
    caiman = importlib.import_module("caiman")
    with pytest.raises(
        AttributeError, match=r"gpucalcium does not provide caiman\.base\.movies\.sbxread yet"
    ):
        caiman.base.movies.sbxread  # noqa: B018
    with pytest.raises(
        ModuleNotFoundError, match=r"gpucalcium does not provide caiman\.no\.such yet|caiman\.no yet"
    ):
        importlib.import_module("caiman.no.such")
    with pytest.raises(ImportError):
        from caiman.base.movies import sbxread  # noqa: F401
    assert not hasattr(caiman, "nothing")


def test_installing_twice_and_uninstalling(served):
    accel.install()
    assert sys.meta_path.count(FINDER) == 1
    importlib.import_module("caiman.mmapping")
    accel.uninstall()
    assert not [name for name in sys.modules if name.partition(".")[0] == "caiman"]
    accel.uninstall()
    assert FINDER not in sys.meta_path


def test_an_installed_package_of_that_name_gives_way_and_comes_back(tmp_path, monkeypatch, caplog):
    (tmp_path / "caiman").mkdir()
    (tmp_path / "caiman" / "__init__.py").write_text("real = True\n")
    (tmp_path / "caiman" / "own.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    accel.uninstall()
    real = importlib.import_module("caiman")
    assert real.real
    try:
        accel.install()
        assert caplog.text.count("installed package 'caiman' is not used") == 1
        assert importlib.import_module("caiman") is not real
        with pytest.raises(ModuleNotFoundError, match=r"does not provide caiman\.own yet"):
            importlib.import_module("caiman.own")
        accel.install()
        assert caplog.text.count("is not used") == 1
    finally:
        accel.uninstall()
    assert importlib.import_module("caiman") is real
    sys.modules.pop("caiman")


def test_nothing_is_loaded_before_it_is_used():
    code = """
        import sys
        from gpucalcium import accel
        accel.install()
        import caiman.source_extraction.cnmf.params
        heavy = {"numba", "scipy.ndimage", "cupy", "matplotlib", "skimage"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd="/")


SCRIPT = """
import sys
import caiman as cm
from caiman.source_extraction.cnmf.params import CNMFParams

if __name__ == "__main__":
    import beside
    assert sys.argv[1:] == ["--fr", "7"], sys.argv
    opts = CNMFParams(params_dict={"fr": float(sys.argv[2])})
    sys.stdout.write(f"{opts.__class__.__module__} {opts.data['fr']} {sys.argv[0]} {__file__} {beside.value}")
    sys.exit(3)
"""


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "gpucalcium.accel", *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture
def script(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "analyse.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "beside.py").write_text("value = 'found'\n")
    return tmp_path / "scripts" / "analyse.py"


def test_an_unmodified_script_runs(script, tmp_path):
    done = run("scripts/analyse.py", "--fr", "7", cwd=tmp_path)
    assert done.stdout.split() == [
        "gpucalcium.cnmf.params",
        "7.0",
        "scripts/analyse.py",
        "scripts/analyse.py",
        "found",
    ]
    assert done.returncode == 3, done.stderr


def test_a_module_runs(script, tmp_path):
    done = run("-m", "analyse", "--fr", "7", cwd=script.parent)
    assert done.stdout.startswith("gpucalcium.cnmf.params 7.0")
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name a script to run"),
        (["-m"], "name a module after -m"),
        (["missing.py"], "there is no script missing.py"),
    ],
)
def test_wrong_calls_are_explained(tmp_path, arguments, text):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr


def test_help(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "-m module" in done.stdout


def test_errors_of_a_script_are_its_own(tmp_path):
    (tmp_path / "fails.py").write_text("raise KeyError('x')\n")
    done = run("fails.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("KeyError: 'x'")


def test_the_table_ships_with_the_package():
    assert (importlib.resources.files("gpucalcium.accel") / "modules.toml").is_file()
    assert inspect.getfile(gpucalcium)
