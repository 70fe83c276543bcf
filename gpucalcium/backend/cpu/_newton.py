"""Newton's method for the peak of a correlation given by its spectrum."""

from __future__ import annotations

import numba as nb
import numpy as np

STEPS = 3  # from the best whole-pixel shift; each squares the error, so the third is below rounding


@nb.njit(nogil=True, cache=True)
def climb(products, monomials, cycles, units, last, guess, shifts, peaks):
    """Newton's method for the maximum of c, frame by frame.

    products [n, rows, 2 width] is complex, seen as floats; rows runs over the leading axes. monomials
    [1 + leading + pairs, rows] are 1, the angular frequencies and their products; cycles [axes - 1, rows] are
    whole multiples of units [axes], last [width] angular frequencies.
    """
    n, rows, floats = products.shape
    nl, dims = cycles.shape[0], cycles.shape[0] + 1
    orders = monomials.shape[0]
    real, imag = np.empty((orders, floats), np.float32), np.empty((orders, floats), np.float32)
    sums = np.empty((orders, 5))
    phases = np.empty((dims, max(cycles.max() + 1, len(last))), np.complex128)
    gradient, hessian, step = np.empty(dims), np.empty((dims, dims)), np.empty(dims)
    for t in range(n):
        s = guess[t].copy()
        for newton in range(STEPS + 1):
            real[:] = 0
            imag[:] = 0
            for a in range(dims):
                _powers(units[a] * s[a], phases[a])
            for r in range(rows):
                phase = complex(1.0)
                for a in range(nl):
                    k = cycles[a, r]
                    phase *= phases[a, k] if k >= 0 else np.conj(phases[a, -k])
                c, d = np.float32(phase.real), np.float32(phase.imag)
                for o in range(orders):
                    f, g = monomials[o, r] * c, monomials[o, r] * d
                    for j in range(floats):
                        real[o, j] += f * products[t, r, j]
                        imag[o, j] += g * products[t, r, j]
            _finish_sums(real, imag, last, phases[nl], sums)
            peaks[t] = sums[0, 0]
            if newton == STEPS:
                break
            _derivatives(sums, nl, gradient, hessian)
            _newton_step(gradient, hessian, step)
            for a in range(dims):
                move = min(max(step[a], -0.5), 0.5)
                s[a] = min(max(s[a] + move, guess[t, a] - 1.0), guess[t, a] + 1.0)
        for a in range(dims):
            shifts[t, a] = s[a]


@nb.njit(nogil=True, cache=True)
def _powers(angle, out):
    """exp(i k angle) for k = 0, 1, ..., each from the one before: a sine each would take longer than the sums."""
    step = complex(np.cos(angle), np.sin(angle))
    out[0] = 1.0
    for k in range(1, len(out)):
        out[k] = out[k - 1] * step


@nb.njit(nogil=True, cache=True)
def _finish_sums(real, imag, last, phases, sums):
    """Contract the last axis: sums over k, with w its angular frequency, of re, im, w re, w im, w^2 re."""
    sums[:] = 0
    for k in range(last.shape[0]):
        w, c, d = last[k], phases[k].real, phases[k].imag
        for o in range(real.shape[0]):
            x = np.float64(real[o, 2 * k]) - np.float64(imag[o, 2 * k + 1])
            y = np.float64(real[o, 2 * k + 1]) + np.float64(imag[o, 2 * k])
            re, im = c * x - d * y, d * x + c * y
            sums[o, 0] += re
            sums[o, 1] += im
            sums[o, 2] += w * re
            sums[o, 3] += w * im
            sums[o, 4] += w * w * re


@nb.njit(nogil=True, cache=True)
def _derivatives(sums, nl, gradient, hessian):
    """d/ds brings i w, hence minus the imaginary part; twice brings -w w', minus the real part."""
    for a in range(nl):
        gradient[a] = -sums[1 + a, 1]
        hessian[a, nl] = -sums[1 + a, 2]
        hessian[nl, a] = hessian[a, nl]
    gradient[nl] = -sums[0, 3]
    hessian[nl, nl] = -sums[0, 4]
    o = 1 + nl
    for a in range(nl):
        for b in range(a, nl):
            hessian[a, b] = -sums[o, 0]
            hessian[b, a] = hessian[a, b]
            o += 1


@nb.njit(nogil=True, cache=True)
def _newton_step(gradient, hessian, step):
    """Solve -H step = gradient by Cholesky; along an axis where c is not concave there is no step."""
    dims = len(gradient)
    factor = np.zeros((dims, dims))
    flat = 1e-12
    for a in range(dims):
        flat = max(flat, 1e-6 * abs(hessian[a, a]))
    for a in range(dims):
        for b in range(a + 1):
            v = -hessian[a, b]
            for k in range(b):
                v -= factor[a, k] * factor[b, k]
            if a > b:
                factor[a, b] = v / factor[b, b]
            else:
                factor[a, a] = np.sqrt(v) if v > flat else np.inf
    for a in range(dims):
        v = gradient[a]
        for k in range(a):
            v -= factor[a, k] * step[k]
        step[a] = v / factor[a, a]
    for a in range(dims - 1, -1, -1):
        v = step[a]
        for k in range(a + 1, dims):
            v -= factor[k, a] * step[k]
        step[a] = v / factor[a, a]
