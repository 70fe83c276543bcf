// filters.cu - frames correlated with small kernels. Twin: gpucalcium/backend/cpu/filters.py
#include "common.cuh"

enum Border { CONSTANT, REPLICATE, REFLECT, REFLECT101 };  // in the order of gpucalcium.backend.stencils.BORDERS

// Which of 0..n-1 stands at position i of an axis; -1 where the border is zero.
template <int BORDER>
__device__ __forceinline__ int border_index(int i, int n) {
    if (i >= 0 && i < n) return i;
    if (BORDER == CONSTANT) return -1;
    if (BORDER == REPLICATE || n == 1) return i < 0 ? 0 : n - 1;
    const int period = BORDER == REFLECT ? 2 * n : 2 * n - 2;
    const int last = BORDER == REFLECT ? period - 1 : period;
    const int at = (i % period + period) % period;
    return at < n ? at : last - at;
}

constexpr int FRAMES = 8;  // a thread: what it looks up for a tap serves so many pixels

// correlate<Pixel, BORDER>: out[t, p] = sum over k of weights[k] * frames[t, p + offsets[k]]
//   launch   grid (ceil(pixels / blockDim.x), ceil(n / FRAMES)), block of one dimension, no shared memory
//   mapping  one thread per pixel of FRAMES frames. Neighbouring threads read neighbouring pixels and share
//            them through L1, which is the memory that tiles would be kept in
//   arrays   frames [n, d0, d1, d2] Pixel, offsets [taps, 3] (per axis), weights [taps], read; out [n, d0, d1, d2] written
//   needs    1 <= n <= 65535 FRAMES, d0 * d1 * d2 < 2^31, taps >= 1, |offsets| <= reach per axis; out is not frames
//   numbers  float32, in order of the taps; contraction to fused multiply-adds makes it differ from the twin by
//            rounding: at most taps * 6e-8 * sum |weights| * max |frames|
//   traffic  n * pixels * (sizeof(Pixel) + 4) from DRAM; taps * sizeof(Pixel) a pixel from L1
template <typename Pixel, int BORDER>
__global__ void correlate(const Pixel* __restrict__ frames, index_t n, int d0, int d1, int d2,
                          const int* __restrict__ offsets, const float* __restrict__ weights, int taps,
                          int reach0, int reach1, int reach2, float* __restrict__ out) {
    const index_t pixels = static_cast<index_t>(d0) * d1 * d2, thread = global_thread();
    if (thread >= pixels) return;  // no barrier follows
    const int p = static_cast<int>(thread);
    const int i2 = p % d2, i1 = p / d2 % d1, i0 = p / d2 / d1;
    const bool inside = i0 >= reach0 && i0 < d0 - reach0 && i1 >= reach1 && i1 < d1 - reach1 && i2 >= reach2 &&
                        i2 < d2 - reach2;
    const index_t first = static_cast<index_t>(blockIdx.y) * FRAMES;
    const Pixel* __restrict__ frame[FRAMES];
    float sum[FRAMES];
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
        frame[f] = frames + (first + f < n ? first + f : n - 1) * pixels;  // beyond the end: the last, not stored
        sum[f] = 0.0f;
    }
    for (int k = 0; k < taps; ++k) {
        int j0 = i0 + offsets[3 * k], j1 = i1 + offsets[3 * k + 1], j2 = i2 + offsets[3 * k + 2];
        if (!inside) {
            j0 = border_index<BORDER>(j0, d0);
            j1 = border_index<BORDER>(j1, d1);
            j2 = border_index<BORDER>(j2, d2);
            if (j0 < 0 || j1 < 0 || j2 < 0) continue;  // zero
        }
        const int there = (j0 * d1 + j1) * d2 + j2;
        const float weight = weights[k];
#pragma unroll
        for (int f = 0; f < FRAMES; ++f) sum[f] += weight * static_cast<float>(frame[f][there]);
    }
#pragma unroll
    for (int f = 0; f < FRAMES; ++f)
        if (first + f < n) out[(first + f) * pixels + p] = sum[f];
}

// bilateral<Pixel>: mean of the disc around each pixel, weighted by weights[k] * exp(fall * (difference of values)^2)
//   launch   grid (ceil(d1 * d2 / blockDim.x), n), block of one dimension, no shared memory
//   mapping  one thread per pixel; neighbouring threads share what they read through L1
//   arrays   frames [n, d1, d2] Pixel, offsets [taps, 2], weights [taps], read; out [n, d1, d2] written
//   needs    1 <= n <= 65535, d1 * d2 < 2^31, taps >= 1 with the centre among them; out is not frames
//   numbers  float32, in order of the taps; exp differs from the twin's by rounding, see there
//   traffic  n * pixels * (sizeof(Pixel) + 4) from DRAM; taps * sizeof(Pixel) and one exp per tap a pixel
template <typename Pixel>
__global__ void bilateral(const Pixel* __restrict__ frames, int d1, int d2, const int* __restrict__ offsets,
                          const float* __restrict__ weights, int taps, float fall, float* __restrict__ out) {
    const index_t pixels = static_cast<index_t>(d1) * d2, thread = global_thread();
    if (thread >= pixels) return;  // no barrier follows
    const int p = static_cast<int>(thread), i1 = p / d2, i2 = p % d2;
    const Pixel* __restrict__ frame = frames + blockIdx.y * pixels;
    const float centre = static_cast<float>(frame[p]);
    float sum = 0.0f, total = 0.0f;
    for (int k = 0; k < taps; ++k) {
        const int j1 = border_index<REFLECT101>(i1 + offsets[2 * k], d1);
        const int j2 = border_index<REFLECT101>(i2 + offsets[2 * k + 1], d2);
        const float change = static_cast<float>(frame[static_cast<index_t>(j1) * d2 + j2]) - centre;
        const float weight = weights[k] * expf(fall * change * change);
        sum += weight * change;
        total += weight;
    }
    out[blockIdx.y * pixels + p] = centre + sum / total;
}
