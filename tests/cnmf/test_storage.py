"""Results on disk: round trips, files of CaImAn 1.12, and files that are damaged or something else."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.storage import load_CNMF, read, save
from gpucalcium.errors import MovieNotFoundError, ResultsFileError


@pytest.fixture
def saved(shared):
    return shared / "data/caiman_reference/cnmf_saved.hdf5"


def dense(value):
    return value.toarray() if sparse.issparse(value) else np.asarray(value)


def assert_same(one, two):
    """All attributes equal, of equal types."""
    for name, value in vars(one).items():
        other = getattr(two, name)
        if isinstance(value, Estimates):
            assert_same(value, other)
        elif sparse.issparse(value):
            assert value.dtype == other.dtype
            assert value.format == other.format
            assert (value != other).nnz == 0
        elif isinstance(value, np.ndarray):
            assert value.dtype == other.dtype, name
            assert_array_equal(other, value, name)
        elif isinstance(value, list):
            assert_array_equal(other, value, name)
        else:
            assert value == other or (value is None and other is None), name
            assert isinstance(other, type(value)), name


@pytest.fixture
def run():
    """A small fitted object with values of every kind."""
    rng = np.random.default_rng(0)
    cnmf = CNMF(1, params=CNMFParams(params_dict={"nb": 2, "fr": 12.5, "gSig": [3, 3], "use_cnn": False}))
    cnmf.dims, cnmf.mmap_file = (6, 5), "movie_d1_6.mmap"
    est = cnmf.estimates = Estimates(
        A=sparse.random(30, 4, 0.3, format="csc", dtype=np.float32, rng=rng),
        C=rng.random((4, 20), dtype=np.float32),
        b=rng.random((30, 2)),
        f=rng.random((2, 20)),
        dims=(6, 5),
    )
    est.W = sparse.random(30, 30, 0.1, format="csr", rng=rng)
    est.SNR_comp = np.array([1.0, np.nan, np.inf, 3.0])
    est.g = rng.random((4, 1))
    est.idx_components, est.idx_components_bad = np.array([0, 1, 3]), np.array([2])
    est.cnn_preds, est.shifts = np.zeros(0), np.zeros((0, 2))
    est.Cn, est.nr = rng.random((6, 5)).astype(np.float32), 4
    est.select_components(use_object=True)
    est.accepted_list = np.array([0])
    return cnmf


def test_what_is_saved_is_loaded(run, tmp_path):
    run.save(str(tmp_path / "r.hdf5"))
    loaded = load_CNMF(tmp_path / "r.hdf5", n_processes=2, dview="cluster")
    assert_same(run.estimates, loaded.estimates)
    assert loaded.estimates.discarded_components.A.shape == (30, 1)
    run.params.set("patch", {"n_processes": 2})
    assert loaded.params == run.params
    assert {g: v.asked for g, v in loaded.params.groups.items()}["init"]["gSiz"] is None
    assert (loaded.dims, loaded.mmap_file, loaded.dview) == ((6, 5), "movie_d1_6.mmap", "cluster")
    loaded.params.change_params({"gSig": [4, 4]})
    assert loaded.params.init["gSiz"] == (9, 9)  # derived anew: the file kept what had been asked for
    assert [path.name for path in tmp_path.iterdir()] == ["r.hdf5"]


def test_a_second_round_trip_changes_nothing(run, tmp_path):
    save(run, tmp_path / "a.hdf5")
    save(load_CNMF(tmp_path / "a.hdf5"), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as a, h5py.File(tmp_path / "b.hdf5") as b:
        names = {"a": [], "b": []}
        a.visit(names["a"].append)
        b.visit(names["b"].append)
        assert names["a"] == names["b"]
        for name in names["a"]:
            assert dict(a[name].attrs) == dict(b[name].attrs)
            if isinstance(a[name], h5py.Dataset):
                assert_array_equal(a[name][()], b[name][()])


def test_a_file_of_the_reference_loads_fully(saved, reference):
    root, params, est = read(saved)
    stored = reference.load("cnmf")
    for name in ("A", "b", "f", "sn"):
        assert_allclose(dense(getattr(est, name)), dense(stored[f"refit_p1_{name}"]), rtol=1e-6, atol=1e-6)
    # The file was written after one more deconvolution, which moves traces but not what the footprints see.
    noisy = stored["refit_p1_C"] + stored["refit_p1_YrA"]
    assert_allclose(est.C + est.YrA, noisy, rtol=1e-5, atol=1e-3)
    assert_allclose(est.SNR_comp, stored["evaluate_SNR_comp"])
    assert_allclose(est.r_values, stored["evaluate_r_values"])
    assert_allclose(est.F_dff, stored["F_dff"], atol=1e-6)
    assert_allclose(est.R, stored["residual_R"], atol=1e-4)
    assert_array_equal(est.idx_components, stored["filter_components_idx"])
    assert (est.dims, est.nr, est.discarded_components, est.cnn_preds.shape) == ((64, 60), 13, None, (0,))
    assert root["dims"] == (64, 60)
    assert root["skip_refinement"] is False
    assert params.data["fnames"] == ["refcnmf_d1_64_d2_60_d3_1_order_C_frames_500.mmap"]
    assert params.motion["indices"] == (slice(None), slice(None))
    assert params.temporal["solvers"] == ["ECOS", "SCS"]
    assert isinstance(params.motion["strides"], tuple)
    assert params.online["max_comp_update_shape"] == np.inf
    params.change_params({"p": 2})  # the movie is long gone, and not asked for


def test_a_file_of_ours_has_the_layout_of_the_reference(saved, tmp_path):
    """Every value of the reference's file is at the same place, of the same kind, in the file that we write."""
    cnmf = load_CNMF(saved)
    save(cnmf, tmp_path / "ours.hdf5")
    with h5py.File(saved) as theirs, h5py.File(tmp_path / "ours.hdf5") as ours:

        def compare(name, node):
            if name == "estimates/psx":  # an attribute that nothing sets
                return
            for key, value in node.attrs.items():
                assert ours[name].attrs[key] == value
            if isinstance(node, h5py.Dataset):
                assert ours[name].shape == node.shape
                assert ours[name].dtype.kind == node.dtype.kind
                assert_array_equal(ours[name][()], node[()])

        theirs.visititems(compare)
        assert dict(theirs.attrs) == dict(ours.attrs)


@pytest.mark.parametrize(
    ("g", "expected"),
    [
        ([np.array([0.9, 0.1]), None, np.array([0.8])], [[0.9, 0.1], [0, 0], [0.8, 0]]),
        ([None, None], [[0], [0]]),
        ([], np.zeros((0, 0))),
        (np.array([[0.5], [0.6]]), [[0.5], [0.6]]),
    ],
)
def test_calcium_models_become_one_array(run, tmp_path, g, expected):
    run.estimates.g = g
    save(run, tmp_path / "r.hdf5")
    assert_array_equal(read(tmp_path / "r.hdf5")[2].g, expected)


def test_values_that_older_writers_could_not_save(run, tmp_path):
    est = run.estimates
    est.b = sparse.csc_matrix(est.b)
    est.A_thr = est.A.copy()
    est.lam = [np.float64(1), np.nan, 2]
    run.params.change_params({"motion": {"indices": (slice(10, 200, 2), slice(None))}})
    run.params.change_params({"options_local_NMF": {"seed": "x", "none": None}, "lr_scheduler": lambda e: e})
    run.skip_refinement = np.bool_(True)
    save(run, tmp_path / "r.hdf5")
    root, params, loaded = read(tmp_path / "r.hdf5")
    assert (loaded.A_thr != est.A_thr).nnz == 0
    assert_array_equal(dense(loaded.b), dense(est.b))
    assert_array_equal(loaded.lam, [1, np.nan, 2])
    assert params.motion["indices"] == (slice(10, 200, 2), slice(None))
    assert params.init["options_local_NMF"] == {"seed": "x", "none": None}
    assert params.ring_CNN["lr_scheduler"] is None
    assert root["skip_refinement"] is True


@given(
    arrays(st.sampled_from([np.float32, np.float64, np.int64, bool, np.uint8]), st.tuples(st.integers(0, 3))),
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text("aé", max_size=3)),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_array_and_scalar_comes_back(tmp_path, array, scalar):
    cnmf = CNMF(1)
    cnmf.estimates.mn, cnmf.estimates.vr = array, scalar
    save(cnmf, tmp_path / "r.hdf5")
    loaded = read(tmp_path / "r.hdf5")[2]
    assert_array_equal(loaded.mn, array)
    assert loaded.mn.dtype == array.dtype
    assert loaded.vr == scalar or (scalar != scalar and loaded.vr != loaded.vr) or loaded.vr is scalar
    assert isinstance(loaded.vr, type(scalar))


def test_ending_and_folder_are_checked_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match=r"must end in '\.hdf5'"):
        save(run, tmp_path / "r.h5")
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        save(run, tmp_path / "nowhere" / "r.hdf5")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(run, tmp_path):
    save(run, tmp_path / "r.hdf5")
    before = (tmp_path / "r.hdf5").read_bytes()
    run.estimates.C = object()
    run.estimates.f = [[1, 2], [3]]  # neither an array nor anything else that HDF5 knows
    with pytest.raises((ValueError, TypeError)):
        save(run, tmp_path / "r.hdf5")
    assert (tmp_path / "r.hdf5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.hdf5"]


@pytest.mark.parametrize("kept", [0, 100, 2048, 0.5, 0.99])
def test_a_truncated_file_is_named(run, tmp_path, kept):
    path = tmp_path / "r.hdf5"
    save(run, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ResultsFileError, match=r"r\.hdf5 cannot be read as results"):
        load_CNMF(path)


def test_a_foreign_file_is_named(tmp_path):
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["mov"] = np.zeros((3, 4, 5))
    with pytest.raises(ResultsFileError, match="without group 'params'"):
        load_CNMF(tmp_path / "movie.h5")
    (tmp_path / "text.hdf5").write_text("not HDF5 at all")
    with pytest.raises(ResultsFileError, match="truncated or not HDF5"):
        load_CNMF(tmp_path / "text.hdf5")
    with pytest.raises(MovieNotFoundError, match="does not exist"):
        load_CNMF(tmp_path / "nothing.hdf5")
    with pytest.raises(NotImplementedError, match=r"'\.hdf5' and '\.h5'"):
        load_CNMF(tmp_path / "text.txt")


def test_a_sparse_matrix_that_points_outside_itself_is_refused(run, tmp_path):
    save(run, tmp_path / "r.hdf5")
    with h5py.File(tmp_path / "r.hdf5", "a") as file:
        file["estimates/A/indices"][0] = 10**6
    with pytest.raises(ResultsFileError):
        load_CNMF(tmp_path / "r.hdf5")


def test_an_impossible_parameter_becomes_its_default(run, tmp_path, caplog):
    save(run, tmp_path / "r.hdf5")
    with h5py.File(tmp_path / "r.hdf5", "a") as file:
        file["params/data/fr"][()] = -3
    assert load_CNMF(tmp_path / "r.hdf5").params.data["fr"] == 30
    assert "params/data/fr is -3.0" in caplog.text
