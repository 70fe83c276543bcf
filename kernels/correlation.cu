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

// scales: of each pixel of n images, its mean (row 0) and 1 / standard deviation (row 1): 0 where it is constant,
// NaN where its variance is not finite
//   launch   grid (ceil(pixels / blockDim.x), n), any block, no shared memory
//   mapping  one thread per pixel and image
//   arrays   sums [n, rows, pixels] double, read: row 0 of x, row 1 of x^2; scales [n, 2, pixels] double, written
//   needs    rows >= 2; share = 1 / what sums are divided by
//   numbers  rounded operation by operation: equal to the twin bit for bit
//   traffic  32 * n * pixels
__global__ void scales(const double* __restrict__ sums, index_t rows, index_t pixels, double share,
                       double* __restrict__ scales) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const double* of = sums + blockIdx.y * rows * pixels;
    const double mean = __dmul_rn(of[p], share);
    const double variance = __dadd_rn(__dmul_rn(of[pixels + p], share), -__dmul_rn(mean, mean));
    double* to = scales + blockIdx.y * 2 * pixels;
    to[p] = mean;
    to[pixels + p] = !isfinite(variance) ? static_cast<double>(NAN) : variance > 0 ? 1.0 / sqrt(variance) : 0.0;
}

// What the pair (a, b) adds to the sums of its two pixels.
__device__ __forceinline__ double pair_term(const double* products, const double* scales, index_t pixels, index_t a,
                                            index_t b, double share, int order) {
    const double covariance = __dadd_rn(__dmul_rn(products[a], share), -__dmul_rn(scales[a], scales[b]));
    double rho = __dmul_rn(covariance, __dmul_rn(scales[pixels + a], scales[pixels + b]));
    rho = rho < -1.0 ? -1.0 : rho > 1.0 ? 1.0 : rho;
    if (order == 0) return log(rho > 0.0 ? rho : 0.0);
    double power = rho;
    for (int k = 1; k < order; ++k) power *= rho;
    return power;
}

// images: mean correlation of each pixel with its neighbours, for n images
//   launch   grid (ceil(pixels / blockDim.x), n), any block, no shared memory
//   mapping  one thread per pixel and image; each correlation is worked out by both pixels of its pair, whose
//            operands are in L1 and L2
//   arrays   sums [n, rows, pixels], scales [n, 2, pixels] as from `scales`, double, read; steps [rows - 2, axes],
//            read; out [n, pixels] float, written
//   needs    pixels = d0 d1 d2, axes 2 (d0 = 1) or 3, components of steps -1, 0 or 1, each step forward in C order
//   numbers  terms added in the order of steps, the earlier neighbour before the later one, rounded operation by
//            operation: equal to the twin bit for bit where order is 1, else up to pow and exp
//   traffic  (8 * rows + 4) * n * pixels
__global__ void images(const double* __restrict__ sums, const double* __restrict__ scales, index_t rows,
                       index_t pixels, double share, int d0, int d1, int d2, const index_t* __restrict__ steps,
                       int axes, int order, float* __restrict__ out) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    sums += (blockIdx.y * rows + 2) * pixels;
    scales += blockIdx.y * 2 * pixels;
    float* const result = out + blockIdx.y * pixels + p;
    const double own = scales[pixels + p];
    if (own != own) {
        *result = NAN;
        return;
    }
    const int c = static_cast<int>(p % d2), j = static_cast<int>(p / d2 % d1), i = static_cast<int>(p / d2 / d1);
    double total = 0;
    int number = 0;
    for (int k = 0; k < rows - 2; ++k) {
        const index_t* step = steps + static_cast<index_t>(k) * axes;
        const int s0 = axes == 3 ? static_cast<int>(step[0]) : 0;
        const int s1 = static_cast<int>(step[axes - 2]), s2 = static_cast<int>(step[axes - 1]);
        const index_t offset = (static_cast<index_t>(s0) * d1 + s1) * d2 + s2;
        for (int sign = -1; sign <= 1; sign += 2) {
            const int i1 = i + sign * s0, j1 = j + sign * s1, c1 = c + sign * s2;
            if (i1 < 0 || i1 >= d0 || j1 < 0 || j1 >= d1 || c1 < 0 || c1 >= d2) continue;
            const index_t q = p + sign * offset;
            if (scales[pixels + q] != scales[pixels + q]) continue;
            const index_t a = sign < 0 ? q : p, b = sign < 0 ? p : q;
            total += pair_term(sums + k * pixels, scales, pixels, a, b, share, order);
            ++number;
        }
    }
    double mean = total / (number > 0 ? number : 1);
    if (order == 0) mean = number > 0 ? exp(mean) : 0.0;
    if (order > 1) mean = copysign(pow(fabs(mean), 1.0 / order), mean);
    *result = static_cast<float>(mean);
}
