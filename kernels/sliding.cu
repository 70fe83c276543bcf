// sliding.cu - sums and covariances of a window that moves. Twin: gpucalcium/backend/cpu/sliding.py
#include "common.cuh"

// A pixel above its pilot, rounded to float32 once. 16-bit differences are exact.
__device__ __forceinline__ float above(float y, float pilot) { return y - pilot; }
__device__ __forceinline__ float above(double y, double pilot) { return static_cast<float>(y - pilot); }
__device__ __forceinline__ float above(int y, int pilot) { return static_cast<float>(y - pilot); }

__device__ __forceinline__ float without_nan(float x) { return isfinite(x) ? x : 0.0f; }

// slide<Pixel, M>: frames first..stop-1 enter, frame t - window leaves when frame t enters
//   with x = float32(frames[t] - pilot), 0 where that is not finite:
//   sums[0, p] += x[p] - old x[p];  sums[1, p]: squares;  sums[2 + k, p]: x[p] x[p + offsets[k]]
//   after frames at, at + every ... the sums are copied to snapshots, rows 0 and 1 NaN where a value in the window is
//   not finite and 0 where all are the same
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel; the M neighbours are in L1
//   arrays   frames [stop, pixels], pilot [pixels] Pixel, read; offsets [M], read; sums [2 + M, pixels] double,
//            last [pixels] float, counts [2, pixels] int (how long x has been the same; how many in the window are
//            not finite), read and written; snapshots [(stop - 1 - at) / every + 1, 2 + M, pixels] double, written
//   needs    0 < offsets[k]; window >= 1; at >= first
//   numbers  products of float32 are exact in double, so contraction to a fused multiply-add changes nothing; added
//            and subtracted in order of t: equal to the twin bit for bit (but float32 subnormals count as zero)
//   traffic  2 * (stop - first) * pixels * sizeof(Pixel), the second half from L2 for short windows
//            + 8 * (2 + M) * pixels * (2 + number of snapshots)
template <typename Pixel, int M>
__global__ void slide(const Pixel* __restrict__ frames, index_t first, index_t stop, index_t window,
                      index_t pixels, const Pixel* __restrict__ pilot, const index_t* __restrict__ offsets,
                      double* __restrict__ sums, float* __restrict__ last, int* __restrict__ counts, index_t at,
                      index_t every, double* __restrict__ snapshots) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const Pixel own_pilot = pilot[p];
    double row[2 + M];
    index_t partner[M + 1];  // + 1: M may be 0
    Pixel partner_pilot[M + 1];
#pragma unroll
    for (int k = 0; k < 2 + M; ++k) row[k] = sums[k * pixels + p];
#pragma unroll
    for (int k = 0; k < M; ++k) {
        partner[k] = p + offsets[k] < pixels ? p + offsets[k] : p;  // a product with itself, which is not stored
        partner_pilot[k] = pilot[partner[k]];
    }
    float before = last[p];
    int same = counts[p], bad = counts[pixels + p];
    for (index_t t = first; t < stop; ++t) {
        const Pixel* __restrict__ frame = frames + t * pixels;
        const float given = above(frame[p], own_pilot);
        same = given == before ? same + 1 : 1;
        before = given;
        bad += isfinite(given) ? 0 : 1;
        const double x = without_nan(given);
        row[0] += x;
        row[1] += x * x;
#pragma unroll
        for (int k = 0; k < M; ++k) row[2 + k] += x * without_nan(above(frame[partner[k]], partner_pilot[k]));
        if (t >= window) {
            const Pixel* __restrict__ gone = frame - window * pixels;
            const float left = above(gone[p], own_pilot);
            bad -= isfinite(left) ? 0 : 1;
            const double y = without_nan(left);
            row[0] -= y;
            row[1] -= y * y;
#pragma unroll
            for (int k = 0; k < M; ++k) row[2 + k] -= y * without_nan(above(gone[partner[k]], partner_pilot[k]));
        }
        if (t >= at && (t - at) % every == 0) {
            double* copy = snapshots + (t - at) / every * (2 + M) * pixels + p;
            const bool constant = same >= window;
            copy[0] = bad > 0 ? static_cast<double>(NAN) : constant ? 0.0 : row[0];
            copy[pixels] = bad > 0 ? static_cast<double>(NAN) : constant ? 0.0 : row[1];
#pragma unroll
            for (int k = 0; k < M; ++k)
                if (p + offsets[k] < pixels) copy[(2 + k) * pixels] = row[2 + k];
        }
    }
    last[p] = before;
    counts[p] = same;
    counts[pixels + p] = bad;
    sums[p] = row[0];
    sums[pixels + p] = row[1];
#pragma unroll
    for (int k = 0; k < M; ++k)
        if (p + offsets[k] < pixels) sums[(2 + k) * pixels + p] = row[2 + k];
}

// departures<Pixel>: departures[t, p] = x[p] - mean[p], then mean[p] += rate * departures[t, p], t = 0..n-1
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel
//   arrays   frames [n, pixels], pilot [pixels] Pixel, read; mean [pixels] double, read and written;
//            departures [n, pixels] double, written
//   needs    0 < rate <= 1
//   numbers  rounded operation by operation, in order of t: equal to the twin bit for bit
//   traffic  n * pixels * (sizeof(Pixel) + 8)
template <typename Pixel>
__global__ void departures(const Pixel* __restrict__ frames, index_t n, index_t pixels,
                           const Pixel* __restrict__ pilot, double rate, double* __restrict__ mean,
                           double* __restrict__ departures) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    double m = mean[p];
    for (index_t t = 0; t < n; ++t) {
        const double d = static_cast<double>(above(frames[t * pixels + p], pilot[p])) - m;
        departures[t * pixels + p] = d;
        m = __dadd_rn(m, __dmul_rn(rate, d));
    }
    mean[p] = m;
}

// fade<M>: moments[1 + k, p] = (1 - rate) (moments[1 + k, p] + rate d[p] d'), t = 0..n-1, where d' is d of the pixel
// itself (k = 0) or of the one offsets[k - 1] further on
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel; the M neighbours are in L1
//   arrays   departures [n, pixels] double, offsets [M], read; moments [2 + M, pixels] double, rows from 1 read and
//            written
//   needs    0 < offsets[k]
//   numbers  rounded operation by operation, in order of t: equal to the twin bit for bit
//   traffic  8 * n * pixels + 16 * (1 + M) * pixels
template <int M>
__global__ void fade(const double* __restrict__ departures, index_t n, index_t pixels, double rate,
                     const index_t* __restrict__ offsets, double* __restrict__ moments) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const double keep = 1.0 - rate;
    double covariance[1 + M];
    index_t step[1 + M];
#pragma unroll
    for (int k = 0; k <= M; ++k) {
        const index_t offset = k == 0 ? 0 : offsets[k - 1];
        step[k] = p + offset < pixels ? offset : 0;  // such a product is not stored
        covariance[k] = moments[(1 + k) * pixels + p];
    }
    for (index_t t = 0; t < n; ++t) {
        const double* __restrict__ d = departures + t * pixels + p;
#pragma unroll
        for (int k = 0; k <= M; ++k)
            covariance[k] =
                __dmul_rn(keep, __dadd_rn(covariance[k], __dmul_rn(rate, __dmul_rn(d[0], d[step[k]]))));
    }
#pragma unroll
    for (int k = 0; k <= M; ++k)
        if (k == 0 || step[k] > 0) moments[(1 + k) * pixels + p] = covariance[k];
}
