// products.cu - sums over a movie on sparse supports. Twin: gpucalcium/backend/cpu/products.py
#include "common.cuh"

// project<Pixel>: out[t, k] = sum over the entries e of column k of values[e] * frames[t, rows[e]]
//   launch   grid (ceil(n / warps of a block), K), block a multiple of 32, no shared memory
//   mapping  one warp per frame and column; its lanes stride over the column's entries. Rows are sorted, so
//            neighbouring lanes mostly read neighbouring pixels
//   arrays   frames [n, d] Pixel, indptr [K + 1], rows, values [nnz], read; out [n, K] double, written
//   needs    0 <= rows < d; K <= 65535
//   numbers  double; summed by lane, then over the warp in a fixed tree: the twin sums in another order, 1e-14
//   traffic  n * nnz * sizeof(Pixel); values and rows come from L2
template <typename Pixel>
__global__ void project(const Pixel* __restrict__ frames, index_t n, index_t d, const index_t* __restrict__ indptr,
                        const index_t* __restrict__ rows, const float* __restrict__ values,
                        double* __restrict__ out) {
    const index_t t = static_cast<index_t>(blockIdx.x) * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (t >= n) return;  // whole warps leave; no barrier follows
    const index_t k = blockIdx.y;
    const Pixel* __restrict__ frame = frames + t * d;
    double sum = 0.0;
    for (index_t e = indptr[k] + threadIdx.x % WARP; e < indptr[k + 1]; e += WARP)
        sum += static_cast<double>(values[e]) * static_cast<double>(frame[rows[e]]);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) out[t * gridDim.y + k] = sum;
}

// add_samples<Pixel>: sums[e] += sum over t of frames[t, rows[e]] * traces[t, columns[e]]
//   launch   grid ceil(nnz / blockDim.x), block a multiple of 32, no shared memory
//   mapping  one thread per entry: sorted entries read neighbouring pixels and one and the same trace
//   arrays   frames [n, d] Pixel, traces [n, K] double, rows, columns [nnz], read; sums [nnz] double, read and written
//   needs    0 <= rows < d, 0 <= columns < K
//   numbers  double, in order of t; multiply-adds are fused, which the twin's are not: 1e-15 of the sum of |products|
//   traffic  n * nnz * sizeof(Pixel); traces come from L1
template <typename Pixel>
__global__ void add_samples(const Pixel* __restrict__ frames, index_t n, index_t d,
                            const double* __restrict__ traces, index_t K, const index_t* __restrict__ rows,
                            const index_t* __restrict__ columns, index_t nnz, double* __restrict__ sums) {
    const index_t e = global_thread();
    if (e >= nnz) return;  // no barrier follows
    const Pixel* __restrict__ pixel = frames + rows[e];
    const double* __restrict__ weight = traces + columns[e];
    double sum = sums[e];
    for (index_t t = 0; t < n; ++t) sum += weight[t * K] * static_cast<double>(pixel[t * d]);
    sums[e] = sum;
}

// add_squares<Pixel>: sums[p] += sum over t of frames[t, p]^2
//   launch   grid ceil(d / blockDim.x), block a multiple of 32, no shared memory
//   mapping  one thread per pixel: a warp reads 32 neighbours of one frame
//   arrays   frames [n, d] Pixel, read; sums [d] double, read and written
//   needs    nothing
//   numbers  double, in order of t; fused, 1e-15
//   traffic  n * d * sizeof(Pixel)
template <typename Pixel>
__global__ void add_squares(const Pixel* __restrict__ frames, index_t n, index_t d, double* __restrict__ sums) {
    const index_t p = global_thread();
    if (p >= d) return;  // no barrier follows
    double sum = sums[p];
    for (index_t t = 0; t < n; ++t) {
        const double value = static_cast<double>(frames[t * d + p]);
        sum += value * value;
    }
    sums[p] = sum;
}
