// quantile.cu - percentiles of traces: running, and where their density peaks. Twin: gpucalcium/backend/cpu/quantile.py
#include "common.cuh"

// A float as an integer that grows with it, and back
__device__ __forceinline__ unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float of_key(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// running_percentile: result[k, t] = element int(window q[k] / 100) (at most the last) of the sorted padded[k, t .. t + window - 1]
//   launch   grid (ceil(T / blockDim.x), K), block of one dimension, no shared memory
//   mapping  a thread per sample. The element is found by its 32 bits, from the highest: each costs one walk through
//            the window, and the windows of a warp are neighbours, so the walks read L1 in whole lines
//   arrays   padded [K, T + window - 1] float, q [K] double, read; result [K, T] float, written
//   needs    1 <= window, no NaN; K <= 65535
//   numbers  exact: an element of the window
//   traffic  8 a sample from DRAM; 128 * window a sample from L1
__global__ void running_percentile(const float* __restrict__ padded, const double* __restrict__ q, index_t T,
                                   index_t window, float* __restrict__ result) {
    const index_t t = global_thread(), k = blockIdx.y;
    if (t >= T) return;  // no barrier follows
    const float* __restrict__ x = padded + k * (T + window - 1) + t;
    index_t rank = static_cast<index_t>(static_cast<double>(window) * q[k] / 100.0);
    if (rank > window - 1) rank = window - 1;
    unsigned found = 0;
    for (unsigned bit = 0x80000000u; bit != 0; bit >>= 1) {
        const unsigned trial = found | bit;  // the element has this bit if not more than `rank` lie below it
        index_t below = 0;
        for (index_t i = 0; i < window; ++i) below += key_of(x[i]) < trial;
        if (below <= rank) found = trial;
    }
    result[k * T + t] = of_key(found);
}

constexpr int BINS = 4096;       // of the histogram that the density is smoothed from
constexpr double MARGIN = 0.1;   // of the range of the data, added on both sides
constexpr int STAGES = 7;        // Botev et al. 2010: further stages change nothing
constexpr double WIDEST = 0.1;   // squared bandwidth, in units of the range
constexpr double UNKNOWN = 50.0;  // percentile of a row whose density cannot be told
constexpr int BISECTIONS = 60;
constexpr double NEGLIGIBLE = 700.0;  // exp(-700) is the smallest double
constexpr double FADED = 45.0;        // exp(-45) is below the rounding of a density
constexpr double PI = 3.14159265358979323846;

// 2 pi^(2 s) sum_k k^(2 s) (a_k / 2)^2 exp(-k^2 pi^2 t): squared norm of the s-th derivative of the density
__device__ double roughness(int s, double t, const double* __restrict__ a) {
    double total = 0.0;
    for (int k = 1 + block_thread(); k < BINS; k += block_threads()) {
        const double frequency = k * PI, exponent = frequency * frequency * t;
        if (exponent > NEGLIGIBLE) break;
        total += pow(frequency, 2.0 * s) * 0.25 * a[k] * a[k] * exp(-exponent);
    }
    return 2.0 * block_sum(total);
}

// t - xi gamma^[7](t) of Botev et al. for n different values; every thread of the block calls and gets it
__device__ double excess(double t, const double* a, double n) {
    double f = roughness(STAGES, t, a);
    for (int s = STAGES - 1; s > 1; --s) {
        double odd = 1.0;
        for (int factor = 1; factor < 2 * s; factor += 2) odd *= factor;
        const double constant = 2.0 * (1.0 + pow(0.5, s + 0.5)) / 3.0 * odd / sqrt(2.0 * PI);
        f = roughness(s, pow(constant / (n * f), 2.0 / (3 + 2 * s)), a);
    }
    return t - pow(2.0 * n * sqrt(PI) * f, -0.4);
}

// Smallest root of the excess in 0..WIDEST, by bisection after a scan; NaN without one
__device__ double diffusion_time(const double* a, double n) {
    double low = 0.0;
    for (double width = 1e-5; low < WIDEST; width *= 2.0) {
        double high = fmin(low + width, WIDEST);
        if (excess(high, a, n) > 0.0) {
            for (int i = 0; i < BISECTIONS; ++i) {
                const double middle = 0.5 * (low + high);
                if (excess(middle, a, n) > 0.0)
                    high = middle;
                else
                    low = middle;
            }
            return 0.5 * (low + high);
        }
        low = high;
    }
    return NAN;
}

// cos(pi k (j + 1/2) / BINS); the angle is reduced in integers
__device__ __forceinline__ double wave(int k, int j) {
    return cos(PI / (2 * BINS) * (static_cast<index_t>(k) * (2 * j + 1) % (4 * BINS)));
}

// mode_percentile: percentile q[k] at which the density of row k of `ranked` peaks, and the value there
//   launch   grid K, block a multiple of 32, no dynamic shared memory
//   mapping  a block per row: its threads share the frequencies, then the bins
//   arrays   ranked [K, n] double, each row sorted, read; work [K, 2, BINS] double, scratch; q, value [K] double, written
//   needs    n >= 1, no NaN
//   numbers  double; cosine sums and a fixed tree in place of the twin's fast transform: q to 1e-6 of the twin's, but
//            where two bins of the density tie
//   traffic  n * 8 + BINS * 32 a row; computing n * BINS cosines outweighs it
__global__ void mode_percentile(const double* __restrict__ ranked, index_t n, double* work, double* __restrict__ q,
                                double* __restrict__ value) {
    const double* __restrict__ x = ranked + blockIdx.x * n;
    double *a = work + 2 * static_cast<index_t>(blockIdx.x) * BINS, *density = a + BINS;
    const double low = x[0], spread = x[n - 1] - x[0];
    if (!(spread > 0.0 && spread < INFINITY)) {  // so for the whole block: no thread waits for another
        if (block_thread() == 0) {
            q[blockIdx.x] = UNKNOWN;
            value[blockIdx.x] = low;
        }
        return;
    }
    const double width = (1.0 + 2.0 * MARGIN) * spread / (BINS - 1);
    double distinct = 0.0;
    for (index_t i = block_thread(); i < n; i += block_threads()) distinct += i == 0 || x[i] != x[i - 1];
    distinct = block_sum(distinct);
    for (int k = block_thread(); k < BINS; k += block_threads()) {
        double sum = 0.0;
        for (index_t i = 0; i < n; ++i) sum += wave(k, static_cast<int>((x[i] - low + MARGIN * spread) / width));
        a[k] = 2.0 * sum / n;
    }
    __syncthreads();
    const double t = diffusion_time(a, distinct);
    Peak<double> peak = {-INFINITY, BINS};
    for (int j = block_thread(); j < BINS; j += block_threads()) {
        double sum = 0.5 * a[0];
        for (int k = 1; k < BINS; ++k) {
            const double frequency = k * PI, exponent = 0.5 * frequency * frequency * t;
            if (exponent > FADED) break;
            sum += a[k] * exp(-exponent) * wave(k, j);
        }
        density[j] = sum / BINS;
        peak = better(peak, Peak<double>{density[j], j});
    }
    peak = block_peak(peak);
    double below = 0.0;
    for (index_t j = block_thread(); j <= peak.index && j < BINS; j += block_threads()) below += density[j];
    below = 100.0 * block_sum(below);
    if (block_thread() != 0) return;
    q[blockIdx.x] = t > 0.0 && below >= 0.0 && below < 100.0 ? below : UNKNOWN;
    value[blockIdx.x] = low - MARGIN * spread + peak.index * width;
}
