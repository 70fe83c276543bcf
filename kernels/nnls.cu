// nnls.cu - many small non-negative regressions that share one Gram matrix. Twin: gpucalcium/backend/cpu/nnls.py
#include "common.cuh"

// The regressions of one launch; problem i has the entries indptr[i] .. indptr[i + 1] - 1.
struct Problems {
    const index_t* components;
    const double *products, *gram;
    index_t M;

    __device__ double curvature(index_t e) const { return gram[components[e] * (M + 1)]; }
    // Gradient of w'Gw / 2 - q'w in w_e
    __device__ double slope(index_t e, index_t first, index_t last, const double* w) const {
        const double* row = gram + components[e] * M;
        double total = -products[e];
        for (index_t i = first; i < last; ++i) total += row[components[i]] * w[i];
        return total;
    }
    // Residual sum of squares
    __device__ double residual(index_t first, index_t last, double square, const double* w) const {
        double total = square;
        for (index_t e = first; e < last; ++e)
            if (w[e] > 0.0) total += w[e] * (slope(e, first, last, w) - products[e]);
        return total;
    }
};

// Coordinate descent on one problem until it is optimal; entries with infinite penalty stay out.
__device__ void descend(const Problems& problems, index_t first, index_t last, const double* penalty,
                        const double* tolerance, int max_sweeps, double* w) {
    for (int sweep = 0; sweep < max_sweeps; ++sweep) {
        bool optimal = true;
        for (index_t e = first; e < last; ++e) {
            const double curvature = problems.curvature(e);
            if (!(curvature > 0.0) || penalty[e] == INFINITY) {
                if (w[e] != 0.0) optimal = false;  // those before it have seen its old weight
                w[e] = 0.0;
                continue;
            }
            const double slope = problems.slope(e, first, last, w) + penalty[e];
            if (slope < -tolerance[e] || (w[e] > 0.0 && slope > tolerance[e])) optimal = false;
            w[e] = fmax(w[e] - slope / curvature, 0.0);
        }
        if (optimal) return;
    }
}

// lasso: w >= 0 that minimises w'Gw / 2 - (q - penalty)'w, problem by problem
//   launch   grid ceil(problems / blockDim.x), block a multiple of 32, no shared memory
//   mapping  one thread per problem; a problem has up to about ten entries
//   arrays   indptr [n + 1], components, q, penalty, tolerance [nnz], G [M, M], read; w [nnz], zero at first, written
//   needs    0 <= components < M
//   numbers  double; ends at the same optimality conditions as the twin, and so within their tolerance of it
//   traffic  sweeps * (sum of squares of entries per problem) * 8 from L2
__global__ void lasso(const index_t* __restrict__ indptr, index_t n, const index_t* __restrict__ components,
                      const double* __restrict__ q, const double* __restrict__ G, index_t M,
                      const double* __restrict__ penalty, const double* __restrict__ tolerance, int max_sweeps,
                      double* w) {
    const index_t i = global_thread();
    if (i >= n) return;  // no barrier follows
    descend(Problems{components, q, G, M}, indptr[i], indptr[i + 1], penalty, tolerance, max_sweeps, w);
}

// nnls_l0: non-negative least squares with as few regressors as a residual of `bound` allows
//   launch, mapping, needs, numbers, traffic   as lasso
//   arrays   as lasso, and squares, bound [n], read; penalty, trial, w [nnz], all zero at first, written
__global__ void nnls_l0(const index_t* __restrict__ indptr, index_t n, const index_t* __restrict__ components,
                        const double* __restrict__ q, const double* __restrict__ G, index_t M,
                        const double* __restrict__ squares, const double* __restrict__ bound,
                        const double* __restrict__ tolerance, int max_sweeps, double* penalty, double* trial,
                        double* w) {
    const index_t i = global_thread();
    if (i >= n) return;  // no barrier follows
    const Problems problems{components, q, G, M};
    const index_t first = indptr[i], last = indptr[i + 1];
    descend(problems, first, last, penalty, tolerance, max_sweeps, w);
    while (problems.residual(first, last, squares[i], w) <= bound[i]) {
        index_t dropped = -1;
        double lowest = INFINITY;
        int positive = 0;
        for (index_t e = first; e < last; ++e) {
            if (!(w[e] > 0.0)) continue;
            ++positive;
            penalty[e] = INFINITY;
            for (index_t j = first; j < last; ++j) trial[j] = w[j];
            descend(problems, first, last, penalty, tolerance, max_sweeps, trial);
            const double without = problems.residual(first, last, squares[i], trial);
            penalty[e] = 0.0;
            if (without < lowest) {
                dropped = e;
                lowest = without;
            }
        }
        if (positive < 2 || lowest > bound[i]) break;
        penalty[dropped] = INFINITY;
        descend(problems, first, last, penalty, tolerance, max_sweeps, w);
    }
}
