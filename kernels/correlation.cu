// correlation.cu - sums over time for correlations of neighbouring pixels. Twin: gpucalcium/backend/cpu/correlation.py
#include "common.cuh"

// A pixel above its pilot, rounded to float32 once. 16-bit differences are exact.
__device__ __forceinline__ float above(float y, float pilot) { return y - pilot; }
__device__ __forceinline__ float above(double y, double pilot) { return static_cast<float>(y - pilot); }
__device__ __forceinline__ float above(int y, int pilot) { return static_cast<float>(y - pilot); }

// add_products<Pixel, M>: with x = float32(frames[t] - pilot), over t = 0..n-1
//   sums[0, p] += x[p];  sums[1, p] += x[p]^2;  sums[2 + k, p] += x[p] x[p + offsets[k]], k = 0..M-1
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel, so loads coalesce; the M neighbours are in L1, where the frame's own
//            loads of this block and the next have put them
//   arrays   frames [n, pixels], pilot [pixels] Pixel, read; offsets [M], read; sums [2 + M, pixels] double,
//            read and written, but for the last offsets[k] entries of row 2 + k
//   needs    0 < offsets[k]; n * pixels may exceed 2^31
//   numbers  products of float32 are exact in double, so contraction to a fused multiply-add changes nothing;
//            added in order of t: equal to the twin bit for bit (but float32 subnormals count as zero)
//   traffic  n * pixels * sizeof(Pixel) from DRAM + 16 * (2 + M) * pixels; 2 + M double additions a pixel, which
//            cards with few double units do at 5e10 pixels/s: still several times what a bus delivers
template <typename Pixel, int M>
__global__ void add_products(const Pixel* __restrict__ frames, index_t n, index_t pixels,
                             const Pixel* __restrict__ pilot, const index_t* __restrict__ offsets,
                             double* __restrict__ sums) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const Pixel own_pilot = pilot[p];
    double sum = sums[p], squares = sums[pixels + p];
    double products[M + 1];  // + 1: M may be 0
    index_t partner[M + 1];
    Pixel partner_pilot[M + 1];
#pragma unroll
    for (int k = 0; k < M; ++k) {
        const bool inside = p + offsets[k] < pixels;
        partner[k] = inside ? p + offsets[k] : p;  // a product with itself, which is not stored
        partner_pilot[k] = pilot[partner[k]];
        products[k] = sums[(2 + k) * pixels + p];
    }
    constexpr int AHEAD = M > 8 ? 1 : 4;  // frames whose loads are under way at once, as registers allow
#pragma unroll AHEAD
    for (index_t t = 0; t < n; ++t) {
        const Pixel* __restrict__ frame = frames + t * pixels;
        const double x = above(frame[p], own_pilot);
        sum += x;
        squares += x * x;
#pragma unroll
        for (int k = 0; k < M; ++k) products[k] += x * above(frame[partner[k]], partner_pilot[k]);
    }
    sums[p] = sum;
    sums[pixels + p] = squares;
#pragma unroll
    for (int k = 0; k < M; ++k)
        if (p + offsets[k] < pixels) sums[(2 + k) * pixels + p] = products[k];
}
