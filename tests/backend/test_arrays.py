"""Arrays of both kinds, and the proof that each listed array function means the same on both."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.backend import arrays
from gpucalcium.errors import ArrayTypeError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(5, 7, 6)).astype("float32")
Y = RNG.normal(size=(5, 7, 6)).astype("float32")
SQUARE = (RNG.normal(size=(2, 5, 5)) + 5 * np.eye(5)).astype("float32")
SYMMETRIC = (SQUARE @ SQUARE.transpose(0, 2, 1)).astype("float32")
NAN = np.where(RNG.random(X.shape) < 0.2, np.nan, X).astype("float32")
NAN[0, 0] = X[0, 0]

# name -> (function of the namespace and the arrays that it is given, those arrays)
EXAMPLES = {
    "xp": {
        **{
            name: (lambda ns, x, name=name: getattr(ns, name)(x), (X,))
            for name in (
                "abs all any asarray ascontiguousarray cos empty_like exp isfinite isnan mean median max min ravel "
                "sin square std sum zeros_like argmax round nan_to_num"
            ).split()
        },
        **{
            name: (lambda ns, x, name=name: getattr(ns, name)(x, axis=1), (NAN,))
            for name in "nanmax nanmean nanmedian nanmin".split()
        },
        **{
            name: (lambda ns, x, y, name=name: getattr(ns, name)(x, y), (X, Y))
            for name in "divide maximum minimum multiply subtract".split()
        },
        **{
            name: (lambda ns, x, name=name: getattr(ns, name)((3, 4), dtype="float32"), (X,))
            for name in "ones zeros empty".split()
        },
        **{
            name: (lambda ns, x, name=name: getattr(ns, name)(ns.abs(x) + 1), (X,))
            for name in "log sqrt".split()
        },
        "arange": (lambda ns, x: ns.arange(2, 9, 3), (X,)),
        "argsort": (lambda ns, x: ns.argsort(x, axis=-1), (X,)),
        "clip": (lambda ns, x: ns.clip(x, -0.5, 0.5), (X,)),
        "concatenate": (lambda ns, x, y: ns.concatenate([x, y], axis=1), (X, Y)),
        "copyto": (lambda ns, x: (out := ns.zeros_like(x), ns.copyto(out, x))[0], (X,)),
        "cumsum": (lambda ns, x: ns.cumsum(x, axis=0), (X,)),
        "dot": (lambda ns, x, y: ns.dot(x[0], y[0].T), (X, Y)),
        "einsum": (lambda ns, x, y: ns.einsum("tij,tij->t", x, y), (X, Y)),
        "eye": (lambda ns, x: ns.eye(4, dtype="float32"), (X,)),
        "float32": (lambda ns, x: x.astype(ns.float32), (X,)),
        "float64": (lambda ns, x: x.astype(ns.float64), (X,)),
        "full": (lambda ns, x: ns.full((2, 3), 7.0, dtype="float32"), (X,)),
        "matmul": (lambda ns, x, y: ns.matmul(x, y.transpose(0, 2, 1)), (X, Y)),
        "moveaxis": (lambda ns, x: ns.moveaxis(x, 0, -1), (X,)),
        "nan": (lambda ns, x: x * 0 + ns.nan, (X,)),
        "newaxis": (lambda ns, x: x[ns.newaxis], (X,)),
        "nonzero": (lambda ns, x: ns.nonzero(x > 0)[1], (X,)),
        "outer": (lambda ns, x: ns.outer(x[0, 0], x[0, 1]), (X,)),
        "pi": (lambda ns, x: x * ns.pi, (X,)),
        "reshape": (lambda ns, x: ns.reshape(x, (7, -1)), (X,)),
        "sort": (lambda ns, x: ns.sort(x, axis=1), (X,)),
        "stack": (lambda ns, x, y: ns.stack([x, y]), (X, Y)),
        "take": (lambda ns, x: ns.take(x, ns.arange(3), axis=1), (X,)),
        "tensordot": (lambda ns, x, y: ns.tensordot(x, y, axes=([1, 2], [1, 2])), (X, Y)),
        "transpose": (lambda ns, x: ns.transpose(x, (2, 0, 1)), (X,)),
        "where": (lambda ns, x, y: ns.where(x > 0, x, y), (X, Y)),
    },
    "fft": {
        "fft": (lambda ns, x: ns.fft(x, axis=1), (X,)),
        "fftn": (lambda ns, x: ns.fftn(x, axes=(1, 2)), (X,)),
        "ifft": (lambda ns, x: ns.ifft(x, axis=1), (X,)),
        "ifftn": (lambda ns, x: ns.ifftn(x, axes=(1, 2)), (X,)),
        "rfft": (lambda ns, x: ns.rfft(x, axis=-1), (X,)),
        "rfft2": (lambda ns, x: ns.rfft2(x), (X,)),
        "rfftn": (lambda ns, x: ns.rfftn(x, axes=(1, 2)), (X,)),
        "irfft": (lambda ns, x: ns.irfft(ns.rfft(x, axis=-1), n=6, axis=-1), (X,)),
        "irfft2": (lambda ns, x: ns.irfft2(ns.rfft2(x), s=(7, 6)), (X,)),
        "irfftn": (lambda ns, x: ns.irfftn(ns.rfftn(x, axes=(1, 2)), s=(7, 6), axes=(1, 2)), (X,)),
        "fftfreq": (lambda ns, x: x[0, :, 0] * ns.fftfreq(7), (X,)),
        "rfftfreq": (lambda ns, x: x[0, :4, 0] * ns.rfftfreq(7), (X,)),
        "fftshift": (lambda ns, x: ns.fftshift(x, axes=(1, 2)), (X,)),
    },
    "ndimage": {
        "convolve1d": (lambda ns, x: ns.convolve1d(x, x[0, 0, :3], axis=1, mode="nearest"), (X,)),
        "correlate1d": (lambda ns, x: ns.correlate1d(x, x[0, 0, :3], axis=1, mode="constant"), (X,)),
        "gaussian_filter": (lambda ns, x: ns.gaussian_filter(x, (0, 1.5, 0.7)), (X,)),
        "uniform_filter": (lambda ns, x: ns.uniform_filter(x, (1, 3, 3)), (X,)),
    },
    "linalg": {
        "cholesky": (lambda ns, x: ns.cholesky(x), (SYMMETRIC,)),
        "norm": (lambda ns, x: ns.norm(x, axis=-1), (X,)),
        "solve": (lambda ns, x, y: ns.solve(x, y), (SQUARE, SYMMETRIC)),
    },
    "sparse": {
        "csc_matrix": (lambda ns, x, y: ns.csc_matrix(x[0]) @ y[0].T, (X, Y)),
        "csr_matrix": (lambda ns, x, y: ns.csr_matrix(x[0]) @ y[0].T, (X, Y)),
    },
}
LISTED = [(kind, name) for kind, names in arrays._ALLOWED.items() for name in sorted(names)]


@pytest.mark.parametrize(("kind", "name"), LISTED, ids=lambda part: part)
def test_listed_function_means_the_same_as_numpys(wing, kind, name):
    function, given = EXAMPLES[kind][name]
    expected = function(getattr(arrays, kind)(given[0]), *given)
    there = [wing.put(x) for x in given]
    result = function(getattr(arrays, kind)(there[0]), *there)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if name not in ("empty", "empty_like"):  # whose content is not defined
        assert_allclose(backend.to_numpy(result), expected, rtol=2e-5, atol=2e-6)


def test_function_that_is_not_listed_says_where_to_add_it():
    with pytest.raises(AttributeError, match=r"xp\.percentile is not on the list"):
        _ = arrays.xp(X).percentile


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2", "float32", "float64", "bool"])
def test_there_and_back(wing, dtype):
    x = (X * 50).astype(dtype)
    there = backend.put(x)
    assert backend.is_cupy(there) == (wing.name != "cpu")
    assert_array_equal(backend.to_numpy(there), x)


@pytest.mark.parametrize(
    "view", [np.asfortranarray(X), X[:, ::-2], X.transpose(2, 0, 1), X[:0], np.float32(3)]
)
def test_put_is_contiguous_whatever_comes_in(wing, view):
    there = backend.put(view)
    assert there.flags.c_contiguous
    assert_array_equal(backend.to_numpy(there).reshape(np.shape(view)), view)


def test_result_is_of_the_kind_that_was_given(wing):
    there = wing.put(X)
    assert backend.is_cupy(backend.like(there, X)) == (wing.name != "cpu")
    assert type(backend.like(X, there)) is np.ndarray
    assert type(backend.like("movie.tif", there)) is np.ndarray
    assert backend.array_module(there).__name__ == ("numpy" if wing.name == "cpu" else "cupy")


def test_arrays_on_the_gpu_pin_the_wing(wing):
    there = wing.put(X)
    with backend.use("cpu"):
        assert backend.wing(there).__name__.endswith("cpu" if wing.name == "cpu" else "cuda")
        assert backend.wing(X, there) is backend.wing(there)
        assert backend.wing().__name__.endswith("cpu")
    assert backend.wing(X).__name__.endswith("cpu")


def test_new_arrays_are_on_the_active_device(wing):
    for make in (backend.zeros, backend.empty):
        made = make((3, 4), "int32")
        assert backend.is_cupy(made) == (wing.name != "cpu")
        assert (made.shape, made.dtype) == ((3, 4), np.dtype("int32"))


def test_objects_are_refused():
    with pytest.raises(ArrayTypeError, match="holds Python objects"):
        backend.put(np.array([{}, None]))
