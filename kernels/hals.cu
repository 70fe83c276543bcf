// hals.cu - sweeps of hierarchical alternating least squares. Twin: gpucalcium/backend/cpu/hals.py
#include "common.cuh"

// sweep_traces: `sweeps` times, for each row m in `order`, noisy_m = c_m + (u_m - v_m C) / v_mm,
//               c_m = max(noisy_m, 0), or noisy_m where not clipped
//   launch   grid ceil(T / blockDim.x), block a multiple of 32, no shared memory
//   mapping  one thread per frame, which does the whole of it: rows of C are read and written by neighbours together
//   arrays   C, noisy [M, T] read and written; U [M, T], V as CSR indptr [M + 1], neighbours, gram [nnz],
//            order [rows], clipped [M], read
//   needs    v_mm != 0 for the rows in `order`
//   numbers  double, neighbours in their order; fused multiply-adds: 1e-14 of the twin
//   traffic  sweeps * nnz * T * 8, mostly from L2
__global__ void sweep_traces(double* __restrict__ C, double* __restrict__ noisy, const double* __restrict__ U,
                             index_t T, const index_t* __restrict__ indptr, const index_t* __restrict__ neighbours,
                             const double* __restrict__ gram, const index_t* __restrict__ order, index_t rows,
                             const bool* __restrict__ clipped, int sweeps) {
    const index_t t = global_thread();
    if (t >= T) return;  // no barrier follows
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        for (index_t i = 0; i < rows; ++i) {
            const index_t m = order[i];
            double rest = U[m * T + t], diagonal = 0.0;
            for (index_t e = indptr[m]; e < indptr[m + 1]; ++e) {
                if (neighbours[e] == m) diagonal = gram[e];
                rest -= gram[e] * C[neighbours[e] * T + t];
            }
            const double value = C[m * T + t] + rest / diagonal;
            noisy[m * T + t] = value;
            C[m * T + t] = clipped[m] && value < 0.0 ? 0.0 : value;
        }
    }
}

// sweep_footprints: `sweeps` times, for each component m of each pixel, a_m = max(0, a_m + (q_m - sum_j v_mj a_j) / v_mm)
//   launch   grid ceil(pixels / blockDim.x), block a multiple of 32, no shared memory
//   mapping  one thread per pixel, which has a few entries of its own
//   arrays   values [nnz] read and written; indptr [pixels + 1], components, q [nnz], V [M, M], read
//   needs    0 <= components < M
//   numbers  double, entries in their order; fused multiply-adds: 1e-14 of the twin. v_mm <= 0: a_m stays
//   traffic  sweeps * (sum of squares of entries per pixel) * 8 from L2
__global__ void sweep_footprints(double* __restrict__ values, const index_t* __restrict__ indptr, index_t pixels,
                                 const index_t* __restrict__ components, const double* __restrict__ q,
                                 const double* __restrict__ V, index_t M, int sweeps) {
    const index_t pixel = global_thread();
    if (pixel >= pixels) return;  // no barrier follows
    const index_t first = indptr[pixel], last = indptr[pixel + 1];
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        for (index_t e = first; e < last; ++e) {
            const double* __restrict__ row = V + components[e] * M;
            const double curvature = row[components[e]];
            if (!(curvature > 0.0)) continue;
            double rest = q[e];
            for (index_t i = first; i < last; ++i) rest -= row[components[i]] * values[i];
            values[e] = fmax(values[e] + rest / curvature, 0.0);
        }
    }
}
