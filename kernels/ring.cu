// ring.cu - the ring model of a one-photon background. Twin: gpucalcium/backend/cpu/ring.py
#include "common.cuh"

constexpr int STEPS_AT_ONCE = 8;  // sums of a thread: a pixel is loaded once for eight products

// add_pair_products: sums[k, p] += sum over t of frames[t, p] * frames[t, p + steps[k]]
//   launch   grid (ceil(d / blockDim.x), ceil(m / STEPS_AT_ONCE)), no shared memory
//   mapping  one thread per pixel and eight steps; a warp reads 32 neighbours, so loads coalesce
//   arrays   frames [n, d] float, steps [m], read; sums [m, d] double, read and written where p + step < d
//   needs    0 <= steps < d
//   numbers  double, products of floats are exact, in order of t: equal to the twin bit for bit
//   traffic  n * d * 4 from DRAM for each pass of the grid; 9 / 8 * n * d * m * 4 from L1; 16 * m * d for the sums
__global__ void add_pair_products(const float* __restrict__ frames, index_t n, index_t d,
                                  const index_t* __restrict__ steps, int m, double* __restrict__ sums) {
    const index_t p = global_thread();
    if (p >= d) return;  // no barrier follows
    const int first = blockIdx.y * STEPS_AT_ONCE;
    double totals[STEPS_AT_ONCE];
    index_t other[STEPS_AT_ONCE];
    bool there[STEPS_AT_ONCE];
#pragma unroll
    for (int i = 0; i < STEPS_AT_ONCE; ++i) {
        there[i] = first + i < m && p + steps[first + i] < d;
        other[i] = there[i] ? p + steps[first + i] : p;
        totals[i] = there[i] ? sums[(first + i) * d + p] : 0.0;
    }
    for (index_t t = 0; t < n; ++t) {
        const float* frame = frames + t * d;
        const double x = frame[p];
#pragma unroll
        for (int i = 0; i < STEPS_AT_ONCE; ++i) totals[i] += x * frame[other[i]];
    }
#pragma unroll
    for (int i = 0; i < STEPS_AT_ONCE; ++i)
        if (there[i]) sums[(first + i) * d + p] = totals[i];
}

// The pixel that a place of the ring around p stands on; the caller knows that it lies inside.
__device__ index_t standing(const index_t* ring, index_t place, index_t p, index_t width) {
    return p + ring[2 * place] * width + ring[2 * place + 1];
}

// ring_weights: least-squares weights of every pixel's ring, by Cholesky
//   launch   grid of any size, which strides over pixels; block a multiple of 32; shared (n + 1) * 4 bytes
//   mapping  one block per pixel; its threads share the rows of the trailing matrix
//   arrays   sums [m, d] double, pairs [n, n], ring [n, 2], read; work [gridDim.x, (n + 1)^2] double, scratch;
//            out [n, d] float, zero at first, written
//   needs    n places, sorted, the middle among them; pairs[a, b] a row of sums for a <= b
//   numbers  double; each entry is updated column after column, as in the twin, but for fused multiply-adds: 1e-12
//   traffic  n^3 / 6 * 16 per pixel from L2
__global__ void ring_weights(const double* __restrict__ sums, index_t d, const index_t* __restrict__ pairs,
                             const index_t* __restrict__ ring, int n, index_t height, index_t width, double ridge,
                             double* work, float* __restrict__ out) {
    DYNAMIC_SHARED(int, places);  // places [n], then how many of them lie inside
    double* L = work + static_cast<index_t>(blockIdx.x) * (n + 1) * (n + 1);
    const int side = n + 1;
    for (index_t p = blockIdx.x; p < d; p += gridDim.x) {
        if (threadIdx.x == 0) {
            int inside = 0;
            for (int a = 0; a < n; ++a) {
                const index_t row = p / width + ring[2 * a], column = p % width + ring[2 * a + 1];
                const bool middle = ring[2 * a] == 0 && ring[2 * a + 1] == 0;
                if (row >= 0 && row < height && column >= 0 && column < width && !middle) places[inside++] = a;
            }
            places[n] = inside;
        }
        __syncthreads();
        const int k = places[n];
        int middle = 0;
        while (ring[2 * middle] != 0 || ring[2 * middle + 1] != 0) ++middle;
        for (int e = threadIdx.x; e < (k + 1) * k; e += blockDim.x) {
            const int i = e / k, j = e % k;
            if (i < k && j > i) continue;
            const int b = i < k ? places[i] : middle, a = places[j];
            const int low = a < b ? a : b, high = a < b ? b : a;
            L[i * side + j] = sums[pairs[low * n + high] * d + standing(ring, low, p, width)];
        }
        __syncthreads();
        double trace = 0.0;
        for (int i = 0; i < k; ++i) trace += L[i * side + i];
        __syncthreads();
        if (trace > 0.0) {  // the same for all threads
            for (int i = threadIdx.x; i < k; i += blockDim.x) L[i * side + i] += ridge * trace;
            __syncthreads();
            for (int j = 0; j < k; ++j) {
                const double pivot = sqrt(L[j * side + j]);
                __syncthreads();
                for (int i = j + threadIdx.x; i <= k; i += blockDim.x)
                    L[i * side + j] = i == j ? pivot : L[i * side + j] / pivot;
                __syncthreads();
                const int rows = k - j, columns = k - j - 1;
                for (int e = threadIdx.x; e < rows * columns; e += blockDim.x) {
                    const int i = j + 1 + e / columns, c = j + 1 + e % columns;
                    if (c <= i) L[i * side + c] -= L[i * side + j] * L[c * side + j];
                }
                __syncthreads();
            }
            for (int j = k - 1; j >= 0; --j) {
                const double weight = L[k * side + j] / L[j * side + j];
                for (int i = threadIdx.x; i < j; i += blockDim.x) L[k * side + i] -= L[j * side + i] * weight;
                if (threadIdx.x == 0) out[places[j] * d + p] = static_cast<float>(weight);
                __syncthreads();
            }
        }
        __syncthreads();  // places is free for the next pixel
    }
}

// predict: out[t, p] = sum over k of weights[k, p] * frames[t, p + steps[k]]
//   launch   grid (ceil(d / blockDim.x), frames), no shared memory
//   mapping  one thread per pixel of a frame; neighbours read neighbours
//   arrays   frames [n, d] float, weights [m, d] float, steps [m], read; out [n, d] float, written
//   needs    n below 65536 (the grid's second axis)
//   numbers  float, in order of k; fused multiply-adds round less often than the twin
//   traffic  8 * n * d from DRAM, 8 * n * d * m from L1 and L2
__global__ void predict(const float* __restrict__ frames, index_t d, const float* __restrict__ weights,
                        const index_t* __restrict__ steps, int m, float* __restrict__ out) {
    const index_t p = global_thread();
    if (p >= d) return;  // no barrier follows
    const float* frame = frames + blockIdx.y * d;
    float total = 0.0f;
    for (int k = 0; k < m; ++k) {
        const index_t other = p + steps[k];
        if (other >= 0 && other < d) total += weights[k * d + p] * frame[other];
    }
    out[blockIdx.y * d + p] = total;
}
