// field.cu - displacement fields: frames warped by a field on a small grid. Twin: gpucalcium/backend/cpu/field.py
#include "common.cuh"

constexpr int TAPS = 4;               // of cubic interpolation, per axis
constexpr float BICUBIC_A = -0.75f;   // OpenCV's cubic
constexpr float FAR = 1 << 20;        // pixels; no field reaches further, and NaN counts as that
constexpr int BORDER_NAN = 0, BORDER_MIN = 1, BORDER_COPY = 2, BORDER_REFLECT = 3;

// Where the pixel is taken from that stands at i of an axis of length n.
__device__ __forceinline__ int inside(int i, int n, int border) {
    if (border != BORDER_REFLECT) return min(max(i, 0), n - 1);
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return i < n ? i : 2 * n - 1 - i;
}

// smallest<Pixel>: lowest[t] = smallest number of frame t, INFINITY if it has none
//   launch   grid n, block a multiple of 32, no shared memory
//   mapping  one block per frame, threads stride over its pixels
//   arrays   frames [n, pixels] Pixel, read; lowest [n] float, written
//   needs    pixels >= 1
//   numbers  NaN does not count; equal to the twin bit for bit
//   traffic  n * pixels * sizeof(Pixel)
template <typename Pixel>
__global__ void smallest(const Pixel* __restrict__ frames, index_t pixels, float* __restrict__ lowest) {
    float least = INFINITY;
    for (index_t p = threadIdx.x; p < pixels; p += blockDim.x) {
        const float v = static_cast<float>(frames[blockIdx.x * pixels + p]);
        least = v < least ? v : least;
    }
    least = block_reduce(least, Smallest(), INFINITY);
    if (threadIdx.x == 0) lowest[blockIdx.x] = least;
}

// Pixel before a sample at `at - displacement`, and the weights of that and of its neighbours.
__device__ __forceinline__ int cubic(int at, float displacement, float (&weights)[TAPS], float& fraction) {
    float s = -displacement;
    s = s > -FAR ? s : -FAR;
    s = s < FAR ? s : FAR;
    const float whole = floorf(s), a = BICUBIC_A, t = s - whole, u = 1.0f - t;
    weights[0] = a * t * u * u;
    weights[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    weights[2] = ((a + 2.0f) * u - (a + 3.0f)) * u * u + 1.0f;
    weights[3] = a * u * t * t;
    fraction = t;
    return at + static_cast<int>(whole);
}

// warp<Pixel, AXES>: out[t, p] = frame[t] at p - displacement(p), cubic, minus offset
//   launch   1-D grid of ceil(d2 / 32) * ceil(d1 / 8) * d0 * n blocks of (32, 8), no shared memory
//   mapping  one thread per pixel: a warp reads four (16) runs of about 35 neighbours, which L1 shares
//            among lanes and rows; the nodes of the field lie in L1 as well
//   arrays   frames [n, d0, d1, d2] Pixel, grid [n, g0, g1, g2, AXES] float, first<a> [d<a>] int and
//            weights<a> [taps<a>, d<a>] float, lowest [n] float (border 'min' alone), read; out as frames, float,
//            written
//   needs    AXES 2 (then d0 = g0 = 1) or 3; first + taps <= g; border one of BORDER_*
//   numbers  float, as the twin but for fused multiply-add: samples lie 1e-6 of the displacement apart; a tap
//            of weight zero is not read
//   traffic  n * pixels * (sizeof(Pixel) + 4)
template <typename Pixel, int AXES>
__global__ void warp(const Pixel* __restrict__ frames, int d0, int d1, int d2, const float* __restrict__ grid,
                     const int* __restrict__ first0, const float* __restrict__ weights0, int taps0, int g0,
                     const int* __restrict__ first1, const float* __restrict__ weights1, int taps1, int g1,
                     const int* __restrict__ first2, const float* __restrict__ weights2, int taps2, int g2,
                     const float* __restrict__ lowest, float offset, int border, float* __restrict__ out) {
    const index_t wide = (d2 + blockDim.x - 1) / blockDim.x, high = (d1 + blockDim.y - 1) / blockDim.y;
    index_t block = blockIdx.x;
    const int at2 = static_cast<int>(block % wide) * blockDim.x + threadIdx.x;
    block /= wide;
    const int at1 = static_cast<int>(block % high) * blockDim.y + threadIdx.y;
    block /= high;
    const int at0 = static_cast<int>(block % d0);
    const index_t t = block / d0;
    if (at1 >= d1 || at2 >= d2) return;  // no barrier follows

    // Sums of differences from the first node: equal nodes move every pixel by exactly that.
    float displacement[AXES];
    const float* const nodes = grid + t * g0 * g1 * g2 * AXES;
    const float* const row = nodes + ((first0[at0] * g1 + first1[at1]) * g2 + first2[at2]) * AXES;
    for (int a = 0; a < AXES; ++a) {
        float start = 0;
        for (int r = 0; r < taps2; ++r) {
            const float base = row[r * AXES + a];
            float value = base;
            for (int p = 0; p < taps0; ++p)
                for (int q = 0; q < taps1; ++q)
                    value += weights0[p * d0 + at0] * weights1[q * d1 + at1] *
                             (row[((p * g1 + q) * g2 + r) * AXES + a] - base);
            if (r == 0) displacement[a] = start = value;
            else displacement[a] += weights2[r * d2 + at2] * (value - start);
        }
    }

    const int dims[3] = {d0, d1, d2}, at[3] = {at0, at1, at2};
    int cell[AXES];
    float taps[AXES][TAPS];
    bool outside = false;
    for (int a = 0; a < AXES; ++a) {
        const int n = dims[3 - AXES + a];
        float fraction;
        cell[a] = cubic(at[3 - AXES + a], displacement[a], taps[a], fraction);
        outside |= cell[a] < 0 || cell[a] >= n || (cell[a] == n - 1 && fraction > 0);
    }
    float* const target = out + ((t * d0 + at0) * d1 + at1) * d2 + at2;
    if (outside && (border == BORDER_NAN || border == BORDER_MIN)) {
        *target = border == BORDER_NAN ? NAN : lowest[t] - offset;
        return;
    }
    const Pixel* const frame = frames + t * d0 * d1 * d2;
    int from[AXES][TAPS];
    for (int a = 0; a < AXES; ++a)
        for (int i = 0; i < TAPS; ++i) from[a][i] = inside(cell[a] + i - 1, dims[3 - AXES + a], border);
    float v = 0;
    for (int p = 0; p < (AXES == 3 ? TAPS : 1); ++p) {
        const float w0 = AXES == 3 ? taps[0][p] : 1.0f;
        const index_t plane = AXES == 3 ? from[0][p] : 0;
        for (int q = 0; q < TAPS; ++q) {
            const float w1 = w0 * taps[AXES - 2][q];
            if (w1 == 0) continue;
            const Pixel* const line = frame + (plane * d1 + from[AXES - 2][q]) * d2;
            float across = 0;
            for (int r = 0; r < TAPS; ++r)
                if (taps[AXES - 1][r] != 0)
                    across += taps[AXES - 1][r] * static_cast<float>(line[from[AXES - 1][r]]);
            v += w1 * across;
        }
    }
    *target = v - offset;
}
