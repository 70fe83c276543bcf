// correlation.cu - sums over time for correlations of neighbouring pixels. Twin: gpucalcium/backend/cpu/correlation.py
#include "common.cuh"

// A pixel above its pilot and how such values are summed: whole numbers of 17 bits, whose products and sums are exact in
// 64 bits and need no conversion, which would cost more than all else; others in double, rounded to float32 first, so
// that products are exact.
template <typename Pixel> struct Above {
    using Total = long long;
    static __device__ __forceinline__ int of(Pixel y, Pixel pilot) { return static_cast<int>(y) - static_cast<int>(pilot); }
};
template <> struct Above<float> {
    using Total = double;
    static __device__ __forceinline__ double of(float y, float pilot) { return y - pilot; }
};
template <> struct Above<double> {
    using Total = double;
    static __device__ __forceinline__ double of(double y, double pilot) { return static_cast<float>(y - pilot); }
};

// Where a sum starts: whole numbers are summed from 0 and added at the end, others one by one to what was there.
__device__ __forceinline__ void begin(double& total, double before) { total = before; }
__device__ __forceinline__ void begin(long long& total, double) { total = 0; }
__device__ __forceinline__ double end(double total, double) { return total; }
__device__ __forceinline__ double end(long long total, double before) {
    return before + static_cast<double>(total);
}

// add_products<Pixel, M>: with x = float32(frames[t] - pilot), over t = 0..n-1
//   sums[0, p] += x[p];  sums[1, p] += x[p]^2;  sums[2 + k, p] += x[p] x[p + offsets[k]], k = 0..M-1
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel, so loads coalesce; the M neighbours are in L1, where the frame's own
//            loads of this block and the next have put them
//   arrays   frames [n, pixels], pilot [pixels] Pixel (integers of 8 or 16 bits, float or double), read; offsets [M],
//            read; sums [2 + M, pixels] double, read and written, but for the last offsets[k] entries of row 2 + k
//   needs    0 < offsets[k]; n * pixels may exceed 2^31; for integers n < 2^29
//   numbers  products of float32 are exact in double, so contraction to a fused multiply-add changes nothing;
//            added in order of t: equal to the twin bit for bit (but float32 subnormals count as zero). Sums of
//            integers are exact to 2^53
//   traffic  n * pixels * sizeof(Pixel) from DRAM + 16 * (2 + M) * pixels. Per pixel and frame 1 + M loads from L1,
//            1 + M multiply-adds of 32 x 32 + 64 bits (integers) or conversions to double and 2 + M double additions
//            (others): with M = 4 on H200, where an SM gets 16 bytes from DRAM a clock, 3/4 of its bandwidth for either
template <typename Pixel, int M>
__global__ void add_products(const Pixel* __restrict__ frames, index_t n, index_t pixels,
                             const Pixel* __restrict__ pilot, const index_t* __restrict__ offsets,
                             double* __restrict__ sums) {
    using Total = typename Above<Pixel>::Total;
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const Pixel own_pilot = pilot[p];
    Total sum, squares, products[M + 1];  // + 1: M may be 0
    begin(sum, sums[p]);
    begin(squares, sums[pixels + p]);
    index_t partner[M + 1];
    Pixel partner_pilot[M + 1];
#pragma unroll
    for (int k = 0; k < M; ++k) {
        const bool inside = p + offsets[k] < pixels;
        partner[k] = inside ? p + offsets[k] : p;  // a product with itself, which is not stored
        partner_pilot[k] = pilot[partner[k]];
        begin(products[k], sums[(2 + k) * pixels + p]);
    }
    constexpr int AHEAD = M > 8 ? 1 : 4;  // frames whose loads are under way at once, as registers allow
#pragma unroll AHEAD
    for (index_t t = 0; t < n; ++t) {
        const Pixel* __restrict__ frame = frames + t * pixels;
        const auto x = Above<Pixel>::of(frame[p], own_pilot);
        sum += x;
        squares += static_cast<Total>(x) * x;
#pragma unroll
        for (int k = 0; k < M; ++k)
            products[k] += static_cast<Total>(x) * Above<Pixel>::of(frame[partner[k]], partner_pilot[k]);
    }
    sums[p] = end(sum, sums[p]);
    sums[pixels + p] = end(squares, sums[pixels + p]);
#pragma unroll
    for (int k = 0; k < M; ++k) {
        const index_t at = (2 + k) * pixels + p;
        if (p + offsets[k] < pixels) sums[at] = end(products[k], sums[at]);
    }
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
