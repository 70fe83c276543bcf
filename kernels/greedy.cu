// greedy.cu - greedy search for cells in a filtered movie. Twin: gpucalcium/backend/cpu/greedy.py
#include "common.cuh"

// Every step of the search reads the seed that the one before left in device memory, so the host never waits.
// A pixel of -1 in a list is one outside the field of view.

constexpr double EPSILON = 1.1920928955078125e-7;  // 2^-23: keeps an empty footprint from dividing by zero

// seek: seed[0] = the first pixel with the largest value, unless seed[0] is a pixel already
//   launch   one block, a multiple of 32 threads, no dynamic shared memory
//   arrays   values [d] float, read; seed [1], read and written
//   needs    d >= 1
//   numbers  exact
//   traffic  d * 4
__global__ void seek(const float* __restrict__ values, index_t d, index_t* __restrict__ seed) {
    Peak<float> peak = {-INFINITY, d};
    for (index_t p = threadIdx.x; p < d; p += blockDim.x) peak = better(peak, Peak<float>{values[p], p});
    peak = block_peak(peak);
    if (threadIdx.x == 0 && seed[0] < 0) seed[0] = peak.index < d ? peak.index : 0;
}

// list_box: pixels of the box of +- half around a seed, in C order; -1 outside the field of view
//   launch   grid ceil(box / blockDim.x), no shared memory
//   arrays   seed [1], read; pixels [box], written
__global__ void list_box(const index_t* __restrict__ seed, int d0, int d1, int d2, int h0, int h1, int h2,
                         index_t* __restrict__ pixels) {
    const index_t i = global_thread(), s1 = 2 * h1 + 1, s2 = 2 * h2 + 1;
    if (i >= (2 * h0 + 1) * s1 * s2) return;  // no barrier follows
    const index_t a = seed[0] / d2 / d1 + i / s2 / s1 - h0;
    const index_t b = seed[0] / d2 % d1 + i / s2 % s1 - h1;
    const index_t c = seed[0] % d2 + i % s2 - h2;
    const bool inside = a >= 0 && a < d0 && b >= 0 && b < d1 && c >= 0 && c < d2;
    pixels[i] = inside ? (a * d1 + b) * d2 + c : -1;
}

// copy_trace: trace = movie[seed]
//   launch   grid ceil(T / blockDim.x), no shared memory
//   arrays   movie [d, T], seed [1], read; trace [T], written
__global__ void copy_trace(const float* __restrict__ movie, index_t T, const index_t* __restrict__ seed,
                           float* __restrict__ trace) {
    const index_t t = global_thread();
    if (t < T) trace[t] = movie[seed[0] * T + t];
}

// weigh: raw[i] = max(movie[pixels[i]] . trace, 0)
//   launch   grid n, block a multiple of 32, no dynamic shared memory
//   mapping  one block per pixel, its threads stride over time
//   arrays   movie [d, T], pixels [n], trace [T], read; raw [n] float, written
//   numbers  double, in a fixed tree; the twin sums in another order: 1e-15, then rounded to float
//   traffic  n * T * 4
__global__ void weigh(const float* __restrict__ movie, index_t T, const index_t* __restrict__ pixels,
                      const float* __restrict__ trace, float* __restrict__ raw) {
    const index_t pixel = pixels[blockIdx.x];
    double sum = 0.0;
    if (pixel >= 0)
        for (index_t t = threadIdx.x; t < T; t += blockDim.x)
            sum += static_cast<double>(movie[pixel * T + t]) * trace[t];
    sum = block_sum(sum);
    if (threadIdx.x == 0) raw[blockIdx.x] = static_cast<float>(fmax(sum, 0.0));
}

// see: shape = raw / sqrt(|raw|^2 + eps); trace = sum over i of shape[i] * movie[pixels[i]]
//   launch   grid ceil(T / blockDim.x), block a multiple of 32, no dynamic shared memory
//   mapping  one thread per frame; each block sums |raw|^2 for itself, the first one writes the shape
//   arrays   movie [d, T], pixels, raw [n], read; shape [n], trace [T], written
//   numbers  double, pixels in their order
//   traffic  n * T * 4
__global__ void see(const float* __restrict__ movie, index_t T, const index_t* __restrict__ pixels, int n,
                    const float* __restrict__ raw, float* __restrict__ shape, float* __restrict__ trace) {
    double norm = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) norm += static_cast<double>(raw[i]) * raw[i];
    const double scale = 1.0 / sqrt(block_sum(norm) + EPSILON);
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < n; i += blockDim.x) shape[i] = static_cast<float>(raw[i] * scale);
    const index_t t = global_thread();
    if (t >= T) return;  // no barrier follows
    double sum = 0.0;
    for (int i = 0; i < n; ++i)
        if (pixels[i] >= 0)
            sum += static_cast<double>(static_cast<float>(raw[i] * scale)) * movie[pixels[i] * T + t];
    trace[t] = static_cast<float>(sum);
}

// blur: out[m] = sum over i of kernel[pixels[i] - around[m] + centre] * shape[i]
//   launch   grid ceil(m / blockDim.x), no shared memory
//   mapping  one thread per pixel around
//   arrays   shape, pixels [n], around [m], kernel [k0, k1, k2], read; out [m] float, written
//   numbers  double, pixels in their order, then rounded to float
//   traffic  m * n * 12 from L1
__global__ void blur(const float* __restrict__ shape, const index_t* __restrict__ pixels, int n,
                     const index_t* __restrict__ around, int m, int d1, int d2, const float* __restrict__ kernel,
                     int k0, int k1, int k2, float* __restrict__ out) {
    const index_t at = global_thread();
    if (at >= m) return;  // no barrier follows
    const index_t q = around[at];
    double sum = 0.0;
    for (int i = 0; i < n && q >= 0; ++i) {
        const index_t p = pixels[i];
        if (p < 0) continue;
        const index_t a = p / d2 / d1 - q / d2 / d1 + k0 / 2;
        const index_t b = p / d2 % d1 - q / d2 % d1 + k1 / 2;
        const index_t c = p % d2 - q % d2 + k2 / 2;
        if (a >= 0 && a < k0 && b >= 0 && b < k1 && c >= 0 && c < k2)
            sum += static_cast<double>(kernel[(a * k1 + b) * k2 + c]) * shape[i];
    }
    out[at] = static_cast<float>(sum);
}

// take_out: movie[pixels[i], t] -= weights[i] * trace[t]
//   launch   grid (n, any), block of one dimension, no shared memory
//   mapping  one row of blocks per pixel, which strides over time
//   arrays   movie [d, T], read and written; pixels, weights [n], trace [T], read
//   needs    no pixel twice
//   numbers  float; fused, so within 6e-8 of the product from the twin
//   traffic  n * T * 8
__global__ void take_out(float* __restrict__ movie, index_t T, const index_t* __restrict__ pixels,
                         const float* __restrict__ weights, const float* __restrict__ trace) {
    const index_t pixel = pixels[blockIdx.x];
    if (pixel < 0) return;  // no barrier follows
    const float weight = weights[blockIdx.x];
    const index_t step = static_cast<index_t>(gridDim.y) * blockDim.x;
    for (index_t t = static_cast<index_t>(blockIdx.y) * blockDim.x + threadIdx.x; t < T; t += step)
        movie[pixel * T + t] -= weight * trace[t];
}

// energy: out[p] = largest mean of filtered[p, t]^2 over `window` frames that end at t, the past being 0;
//         window 0: the sum over all frames
//   launch   grid n, block a multiple of 32, no dynamic shared memory
//   mapping  one block per pixel; each thread has a stretch of time, and sums the window before it anew
//   arrays   filtered [d, T], pixels [n], read; out [d], written
//   needs    no pixel twice
//   numbers  double; windows are summed anew per thread, the twin carries one sum on: 1e-13
//   traffic  n * T * 4, and blockDim.x * window * 4 a pixel from L2
__global__ void energy(const float* __restrict__ filtered, index_t T, const index_t* __restrict__ pixels,
                       index_t window, float* __restrict__ out) {
    const index_t pixel = pixels[blockIdx.x];
    const float* __restrict__ trace = filtered + (pixel < 0 ? 0 : pixel) * T;
    double best = 0.0;
    if (window == 0) {
        for (index_t t = threadIdx.x; t < T; t += blockDim.x) best += static_cast<double>(trace[t]) * trace[t];
        best = block_sum(best);
    } else {
        const index_t stretch = (T + blockDim.x - 1) / blockDim.x;
        const index_t first = threadIdx.x * stretch, end = first + stretch < T ? first + stretch : T;
        double sum = 0.0;
        for (index_t t = first > window ? first - window : 0; t < end; ++t) {
            sum += static_cast<double>(trace[t]) * trace[t];
            if (t < first) continue;
            if (t >= window) sum -= static_cast<double>(trace[t - window]) * trace[t - window];
            best = sum > best ? sum : best;
        }
        best = block_reduce(best, Largest(), 0.0) / window;
    }
    if (threadIdx.x == 0 && pixel >= 0) out[pixel] = static_cast<float>(best);
}
