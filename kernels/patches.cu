// patches.cu - piecewise-rigid registration: the patches of frames, each where its frame lies.
// Twin: gpucalcium/backend/cpu/patches.py
#include "common.cuh"

constexpr int SETTLE_ROUNDS = 5;  // each takes off most of what a far-off patch still pulls the others by

// gather<Pixel>: out[t, p, x] = frames[t, corners[p] + x + moves[t]] - offset, or fill[corners[p] + x] where that pixel
//                is not finite or lies outside
//   launch   grid ceil(n * patches * w0 * w1 * w2 / blockDim.x), no shared memory
//   mapping  one thread per pixel of a patch; neighbours read neighbours of a row
//   arrays   frames [n, d0, d1, d2] Pixel, fill [d0, d1, d2] float, moves [n, 3] and corners [patches, 3] int, read;
//            out [n, patches, w0, w1, w2] float, written
//   needs    patches inside the frame, of less than 2^31 pixels each; all together may have more
//   numbers  float: equal to the twin bit for bit
//   traffic  n * (d0 * d1 * d2 * sizeof(Pixel) + 4 * patches * w0 * w1 * w2); overlaps and fill are read from L2
template <typename Pixel>
__global__ void gather(const Pixel* __restrict__ frames, index_t n, int d0, int d1, int d2,
                       const float* __restrict__ fill, float offset, const int* __restrict__ moves,
                       const int* __restrict__ corners, int patches, int w0, int w1, int w2,
                       float* __restrict__ out) {
    const index_t at = global_thread(), size = static_cast<index_t>(w0) * w1 * w2;
    if (at >= n * patches * size) return;  // no barrier follows
    const index_t patch = at / size, t = patch / patches;
    const int within = static_cast<int>(at - patch * size);
    const int* const corner = corners + 3 * (patch - t * patches);
    const int* const move = moves + 3 * t;
    const int i = corner[0] + within / w2 / w1, j = corner[1] + within / w2 % w1, k = corner[2] + within % w2;
    const int fi = i + move[0], fj = j + move[1], fk = k + move[2];
    float v = INFINITY;
    if (0 <= fi && fi < d0 && 0 <= fj && fj < d1 && 0 <= fk && fk < d2)
        v = static_cast<float>(frames[((t * d0 + fi) * d1 + fj) * d2 + fk]) - offset;
    out[at] = fabsf(v) < INFINITY ? v : fill[(static_cast<index_t>(i) * d1 + j) * d2 + k];
}

// weigh: out[i, p, r, k] = spectra[i, p, rows[r], k] * kernels[p, r, k]: cross-power at the kept frequencies alone
//   launch   grid ceil(n * patches * kept_rows * width / blockDim.x), no shared memory
//   mapping  one thread per product; neighbours read neighbours
//   arrays   spectra [n, patches, all_rows, columns] float2, rows [kept_rows] long long, kernels [patches,
//            kept_rows, width] float2, read; out [n, patches, kept_rows, width] float2, written
//   needs    width <= columns; 0 <= rows < all_rows; kept_rows * width < 2^31
//   numbers  float
//   traffic  16 * n * patches * kept_rows * width; the kernels are read from L2
__global__ void weigh(const float2* __restrict__ spectra, index_t n, index_t patches, index_t all_rows, index_t columns,
                      const index_t* __restrict__ rows, index_t kept_rows, index_t width,
                      const float2* __restrict__ kernels, float2* __restrict__ out) {
    const index_t at = global_thread(), kept = kept_rows * width;
    if (at >= n * patches * kept) return;  // no barrier follows
    const index_t patch = at / kept;
    const int within = static_cast<int>(at - patch * kept), columns_kept = static_cast<int>(width);
    const int r = within / columns_kept, k = within % columns_kept;
    const float2 x = spectra[(patch * all_rows + rows[r]) * columns + k];
    const float2 g = kernels[(patch % patches * kept_rows + r) * width + k];
    out[at] = {x.x * g.x - x.y * g.y, x.x * g.y + x.y * g.x};
}

// One row of weights times the values of all patches, in order.
__device__ __forceinline__ float weighed(const float* __restrict__ weights, const float* values, int patches) {
    double total = 0;
    for (int q = 0; q < patches; ++q) total += static_cast<double>(weights[q]) * static_cast<double>(values[q]);
    return static_cast<float>(total);
}

__device__ __forceinline__ float within_reach(float value, float middle, float far) {
    return fminf(fmaxf(value, middle - far), middle + far);
}

// settle: out[t, :, a] = at_centres[a] @ shown, where shown[p] is apart[t, p, a], at most limit[0, a, p] from 0 at first,
//         then at most limit[1, a, p] from what within[a] @ shown says of it, SETTLE_ROUNDS times; both limits are 0
//         where patch p was not seen
//   launch   grid (n, axes), block a multiple of 32, shared 8 * patches bytes
//   mapping  one block per frame and axis, threads stride over patches
//   arrays   apart [n, patches, axes] float, seen [n, patches] bool, within and at_centres [axes, patches, patches]
//            float, limit [2, axes, patches] float, read; out [n, patches, axes] float, written
//   needs    patches * 8 bytes of shared memory
//   numbers  double sums in order of the patches: agrees with the twin to rounding
//   traffic  n * patches * (8 * axes + 1); the weights are read from L2
__global__ void settle(const float* __restrict__ apart, const bool* __restrict__ seen, int patches,
                       const float* __restrict__ within, const float* __restrict__ at_centres,
                       const float* __restrict__ limit, float* __restrict__ out) {
    DYNAMIC_SHARED(float, shown);
    float* const said = shown + patches;
    const int a = blockIdx.y, axes = gridDim.y;
    const index_t first = static_cast<index_t>(blockIdx.x) * patches, square = static_cast<index_t>(patches) * patches;
    for (int p = threadIdx.x; p < patches; p += blockDim.x)
        shown[p] = within_reach(apart[(first + p) * axes + a], 0.0f, seen[first + p] ? limit[a * patches + p] : 0.0f);
    __syncthreads();
    for (int round = 0; round < SETTLE_ROUNDS; ++round) {
        for (int p = threadIdx.x; p < patches; p += blockDim.x)
            said[p] = weighed(within + a * square + static_cast<index_t>(p) * patches, shown, patches);
        __syncthreads();
        int changed = 0;
        for (int p = threadIdx.x; p < patches; p += blockDim.x) {
            const float far = seen[first + p] ? limit[(axes + a) * patches + p] : 0.0f;
            const float value = within_reach(apart[(first + p) * axes + a], said[p], far);
            changed |= value != shown[p];
            shown[p] = value;
        }
        if (block_sum(changed) == 0) break;  // the whole block
    }
    for (int p = threadIdx.x; p < patches; p += blockDim.x)
        out[(first + p) * axes + a] = weighed(at_centres + a * square + static_cast<index_t>(p) * patches, shown, patches);
}
