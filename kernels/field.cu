// field.cu - displacement fields: frames warped by a field on a small grid; tiles of frames cut, and blended together.
// Twins: gpucalcium/backend/cpu/field.py, tiles.py
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
//   traffic  n * pixels * (sizeof(Pixel) + 4); in a plane with linear taps 44 loads a pixel from L1, 120 with cubic
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

// cut<Pixel, AXES>: tiles[t, tile, x] = frames[t] at start - halo + x - move, beyond the edge repeated or reflected
//   launch   grid n * g0 * g1 * g2, block a multiple of 32, no shared memory
//   mapping  one block per tile, threads stride over its pixels: neighbours read neighbours
//   arrays   frames [n, d0, d1, d2] Pixel, moves [n, g0, g1, g2, AXES] int, starts<a> [g<a>] int (halo taken
//            off), read; tiles [n, g0, g1, g2, s0, s1, s2] float, written
//   needs    AXES 2 (then d0 = g0 = s0 = 1) or 3
//   numbers  equal to the twin bit for bit
//   traffic  n * tiles * s0 * s1 * s2 * 4, and the frames as often as tiles overlap, from L2 for the most part
template <typename Pixel, int AXES>
__global__ void cut(const Pixel* __restrict__ frames, int d0, int d1, int d2, const int* __restrict__ moves,
                    const int* __restrict__ starts0, int g0, const int* __restrict__ starts1, int g1,
                    const int* __restrict__ starts2, int g2, int s0, int s1, int s2, int border,
                    float* __restrict__ tiles) {
    index_t tile = blockIdx.x;
    const int* const move = moves + tile * AXES;
    float* const target = tiles + tile * s0 * s1 * s2;
    const int first2 = starts2[tile % g2] - move[AXES - 1];
    tile /= g2;
    const int first1 = starts1[tile % g1] - move[AXES - 2];
    tile /= g1;
    const int first0 = starts0[tile % g0] - (AXES == 3 ? move[0] : 0);
    const Pixel* const frame = frames + tile / g0 * d0 * d1 * d2;
    for (int x = threadIdx.x; x < s0 * s1 * s2; x += blockDim.x) {
        const index_t i = inside(first0 + x / s2 / s1, d0, border);
        const int j = inside(first1 + x / s2 % s1, d1, border), k = inside(first2 + x % s2, d2, border);
        target[x] = static_cast<float>(frame[(i * d1 + j) * d2 + k]);
    }
}

// One axis of the tiles: where they begin, which of them each pixel lies in, and their weights.
struct Axis {
    const int* starts;    // [g]
    const int* cover;     // [2, d] first and last tile
    const float* ramps;   // [kinds, g, width]
    int tiles, width, length;
};

// First and one past the last pixel of a tile that came from inside the frame; at least one with 'copy'.
__device__ __forceinline__ void sound(const Axis& axis, int start, float move, int border, int& first, int& end) {
    first = 0;
    end = axis.width;
    if (border == BORDER_REFLECT) return;
    const int n = axis.length;
    int least = static_cast<int>(ceilf(move)), most = n - max(static_cast<int>(ceilf(-move)), 0);
    if (border == BORDER_COPY) {  // the nearest line, if none is inside
        least = min(max(least, 0), n - 1);
        most = max(most, least + 1);
    }
    first = max(least - start, 0);
    if (border == BORDER_COPY) first = min(first, axis.width - 1);
    end = max(min(most - start, axis.width), border == BORDER_COPY ? first + 1 : first);
}

// Weight of the pixel at `at` in one tile, and in `source` the pixel of the tile that stands for it.
__device__ __forceinline__ float place(const Axis& axis, int at, int tile, int kind, float move, int border, int& source) {
    const int start = axis.starts[tile];
    int first, end;
    sound(axis, start, move, border, first, end);
    source = at - start;
    const float weight = axis.ramps[(kind * axis.tiles + tile) * axis.width + source];
    if (border != BORDER_COPY) return source >= first && source < end ? weight : 0.0f;
    source = min(max(source, first), end - 1);
    return weight;
}

// blend<AXES>: out[t, p] = sum over the tiles that p lies in of weight * tile / sum of weights, or fill[t] without any
//   launch   1-D grid of ceil(d2 / 32) * ceil(d1 / 8) * d0 * n blocks of (32, 8), no shared memory
//   mapping  one thread per pixel: a warp reads runs of 32 neighbours of each tile
//   arrays   tiles [n, g0, g1, g2, s0, s1, s2] float, field [n, g0, g1, g2, AXES] float, per axis starts [g], cover
//            [2, d] int and ramps [kinds, g, width] float, kind [n] int, fill [n] float, read; out [n, d0, d1, d2]
//            float, written
//   needs    AXES 2 (then d0 = g0 = s0 = 1) or 3; s >= width + 2 * halo on axes that there are
//   numbers  float, in C order of the tiles, as the twin but for fused multiply-add
//   traffic  n * pixels * 4, and the tiles once
template <int AXES>
__global__ void blend(const float* __restrict__ tiles, int d0, int d1, int d2, int s0, int s1, int s2, int halo,
                      const float* __restrict__ field, const int* __restrict__ starts0,
                      const int* __restrict__ cover0, const float* __restrict__ ramps0, int g0, int w0,
                      const int* __restrict__ starts1, const int* __restrict__ cover1,
                      const float* __restrict__ ramps1, int g1, int w1, const int* __restrict__ starts2,
                      const int* __restrict__ cover2, const float* __restrict__ ramps2, int g2, int w2,
                      const int* __restrict__ kind, const float* __restrict__ fill, int border,
                      float* __restrict__ out) {
    const index_t wide = (d2 + blockDim.x - 1) / blockDim.x, high = (d1 + blockDim.y - 1) / blockDim.y;
    index_t block = blockIdx.x;
    const int at2 = static_cast<int>(block % wide) * blockDim.x + threadIdx.x;
    block /= wide;
    const int at1 = static_cast<int>(block % high) * blockDim.y + threadIdx.y;
    block /= high;
    const int at0 = static_cast<int>(block % d0);
    const index_t t = block / d0;
    if (at1 >= d1 || at2 >= d2) return;  // no barrier follows
    const Axis axis0 = {starts0, cover0, ramps0, g0, w0, d0}, axis1 = {starts1, cover1, ramps1, g1, w1, d1},
               axis2 = {starts2, cover2, ramps2, g2, w2, d2};
    const int halo0 = AXES == 3 ? halo : 0;
    float sum = 0, total = 0;
    for (int a = cover0[at0]; a <= cover0[d0 + at0]; ++a)
        for (int b = cover1[at1]; b <= cover1[d1 + at1]; ++b)
            for (int c = cover2[at2]; c <= cover2[d2 + at2]; ++c) {
                const index_t tile = ((t * g0 + a) * g1 + b) * g2 + c;
                const float* const move = field + tile * AXES;
                int i, j, k;
                float w = place(axis0, at0, a, kind[t], AXES == 3 ? move[0] : 0.0f, border, i);
                w *= place(axis1, at1, b, kind[t], move[AXES - 2], border, j);
                w *= place(axis2, at2, c, kind[t], move[AXES - 1], border, k);
                if (w == 0) continue;
                sum += w * tiles[((tile * s0 + halo0 + i) * s1 + halo + j) * s2 + halo + k];
                total += w;
            }
    out[((t * d0 + at0) * d1 + at1) * d2 + at2] = total > 0 ? sum / total : fill[t];
}
