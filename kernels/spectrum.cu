// spectrum.cu - power of many signals in a band, and its level. Twin: gpucalcium/backend/cpu/spectrum.py
#include "common.cuh"

constexpr int TILE = 32;  // frames x pixels that change places through shared memory

// collect<Pixel>: signals[p, start + t] = frames[t, first + p] - origin[p], p = 0..count-1, t = 0..n-1
//   launch   grid (ceil(count / TILE), ceil(n / TILE)), block (TILE, 8), no dynamic shared memory
//   mapping  a tile per block, read along pixels and written along time: both sides coalesce
//   arrays   frames [n, pixels] Pixel, origin [count] double, read; signals [count, length] float, written
//   needs    first + count <= pixels, start + n <= length
//   numbers  difference in double, rounded once: equal to the twin bit for bit
//   traffic  n * count * (sizeof(Pixel) + 4)
template <typename Pixel>
__global__ void collect(const Pixel* __restrict__ frames, index_t n, index_t pixels, index_t first, index_t count,
                        const double* __restrict__ origin, float* __restrict__ signals, index_t length,
                        index_t start) {
    __shared__ float tile[TILE][TILE + 1];  // odd rows: a column lies in 32 different banks
    const index_t p0 = static_cast<index_t>(blockIdx.x) * TILE, t0 = static_cast<index_t>(blockIdx.y) * TILE;
    for (int row = threadIdx.y; row < TILE; row += blockDim.y) {
        const index_t t = t0 + row, p = p0 + threadIdx.x;
        if (t < n && p < count)
            tile[row][threadIdx.x] =
                static_cast<float>(static_cast<double>(frames[t * pixels + first + p]) - origin[p]);
    }
    __syncthreads();
    for (int row = threadIdx.y; row < TILE; row += blockDim.y) {
        const index_t p = p0 + row, t = t0 + threadIdx.x;
        if (t < n && p < count) signals[p * length + start + t] = tile[threadIdx.x][row];
    }
}

// power: band[p, k] = scale * |spectrum[p, low + k]|^2
//   launch   grid (ceil(bins / blockDim.x), count), block of one dimension, no shared memory
//   mapping  a thread per bin; a block's bins are neighbours, so loads and stores coalesce
//   arrays   spectrum [count, points] complex float, read; band [count, bins] float, written
//   needs    low + bins <= points; count <= 65535
//   numbers  float32; a fused multiply-add may differ from the twin by 1 ulp
//   traffic  count * bins * 12
__global__ void power(const float2* __restrict__ spectrum, index_t points, index_t low, index_t bins, float scale,
                      float* __restrict__ band) {
    const index_t k = global_thread(), p = blockIdx.y;
    if (k >= bins) return;  // no barrier follows
    const float2 x = spectrum[p * points + low + k];
    band[p * bins + k] = scale * (x.x * x.x + x.y * x.y);
}

enum Method { MEAN, MEDIAN, LOGMEXP };  // in the order of METHODS of the twin

// Element `rank` (from 0) of row[0..n-1] in order of size; every thread of the block calls and gets it.
__device__ __forceinline__ float ranked(const float* __restrict__ row, int n, int rank) {
    __shared__ float found;
    if (threadIdx.x == 0) found = NAN;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float x = row[i];
        int below = 0, equal = 0;
        for (int j = 0; j < n; ++j) {
            below += row[j] < x;
            equal += row[j] == x;
        }
        if (below <= rank && rank < below + equal) found = x;  // whoever writes writes the same value
    }
    __syncthreads();
    const float value = found;
    __syncthreads();  // found is free for the next search
    return value;
}

// level<METHOD>: result[p] = sqrt(half the mean, median or geometric mean of band[p, :]); 0 for a row of zeros
//   launch   grid count, block a multiple of 32, no dynamic shared memory
//   mapping  a block per row. The median counts, for each element, those below it: bins^2 reads from L1, but no
//            sorting, and rows have at most 1536 bins
//   arrays   band [count, bins] float, read; result [count] double, written
//   needs    bins >= 1, values >= 0 or NaN (which makes the level NaN)
//   numbers  double sums in a fixed tree: differs from the twin by rounding, 1e-13
//   traffic  count * bins * 4
template <int METHOD>
__global__ void level(const float* __restrict__ band, index_t bins, double floor, double* __restrict__ result) {
    const float* __restrict__ row = band + blockIdx.x * bins;
    double total = 0.0, something = 0.0;
    for (index_t k = threadIdx.x; k < bins; k += blockDim.x) {
        const double x = row[k];
        total += METHOD == LOGMEXP ? log(x + floor) : x;
        if (!(x == 0.0)) something = 1.0;  // NaN is something
    }
    total = block_sum(total);
    something = block_sum(something);
    double value = total / bins;
    if (METHOD == LOGMEXP) value = exp(value);
    if (METHOD == MEDIAN) {
        const int n = static_cast<int>(bins);
        const double upper = ranked(row, n, n / 2), lower = ranked(row, n, (n - 1) / 2);
        value = total == total ? 0.5 * (lower + upper) : NAN;
    }
    if (threadIdx.x == 0) result[blockIdx.x] = something > 0.0 ? sqrt(0.5 * value) : 0.0;
}
