// baseline.cu - levels of every pixel over time, and frames without them. Twin: gpucalcium/backend/cpu/baseline.py
#include "common.cuh"

// A pixel as an unsigned integer that grows with it, and back; NaN of either sign have the largest key
template <typename Pixel> struct Ordered {  // 8 and 16 bits
    typedef unsigned Key;
    static constexpr int BITS = 8 * sizeof(Pixel);
    static constexpr int LOWEST = Pixel(-1) < Pixel(0) ? -(1 << (BITS - 1)) : 0;
    static __device__ __forceinline__ Key key(Pixel x) { return static_cast<Key>(static_cast<int>(x) - LOWEST); }
    static __device__ __forceinline__ double value(Key key) { return static_cast<int>(key) + LOWEST; }
    static __device__ __forceinline__ bool is_missing(Key) { return false; }
};
template <> struct Ordered<float> {
    typedef unsigned Key;
    static constexpr int BITS = 32;
    static constexpr Key TOP = 0x80000000u, NONE = 0xffffffffu;
    static __device__ __forceinline__ Key key(float x) {
        const Key bits = __float_as_uint(x);
        return (bits & ~TOP) > 0x7f800000u ? NONE : bits & TOP ? ~bits : bits | TOP;
    }
    static __device__ __forceinline__ double value(Key key) { return __uint_as_float(key & TOP ? key ^ TOP : ~key); }
    static __device__ __forceinline__ bool is_missing(Key key) { return key == NONE; }
};
template <> struct Ordered<double> {
    typedef unsigned long long Key;
    static constexpr int BITS = 64;
    static constexpr Key TOP = 0x8000000000000000ull, NONE = 0xffffffffffffffffull;
    static __device__ __forceinline__ Key key(double x) {
        const Key bits = static_cast<Key>(__double_as_longlong(x));
        return (bits & ~TOP) > 0x7ff0000000000000ull ? NONE : bits & TOP ? ~bits : bits | TOP;
    }
    static __device__ __forceinline__ double value(Key key) {
        return __longlong_as_double(static_cast<index_t>(key & TOP ? key ^ TOP : ~key));
    }
    static __device__ __forceinline__ bool is_missing(Key key) { return key == NONE; }
};

// percentile<Pixel>: out[p] = percentile `quantile` of frames[0..n-1, p], linear between values; NaN leave a pixel
// without one, or are left out
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel, so loads coalesce. The value is found by the bits of its key, from the highest in
//            which the pixel's keys differ: each bit costs one walk over the frames
//   arrays   frames [n, pixels] Pixel, read; out [pixels] float, written
//   needs    n >= 1; 0 <= quantile <= 100; n * pixels may exceed 2^31
//   numbers  the two values exact; between them in double, not contracted: equal to the twin bit for bit (but float32
//            subnormals count as zero)
//   traffic  (2 + differing bits) * n * pixels * sizeof(Pixel), at most 2 + BITS times: from DRAM where a band of
//            pixels is larger than L2. For 12-bit data still several times what a bus delivers
template <typename Pixel>
__global__ void percentile(const Pixel* __restrict__ frames, index_t n, index_t pixels, double quantile, int skip_nan,
                           float* __restrict__ out) {
    typedef Ordered<Pixel> Order;
    typedef typename Order::Key Key;
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    const Pixel* __restrict__ y = frames + p;
    Key low = ~Key(0), high = 0;
    index_t present = 0;
    for (index_t t = 0; t < n; ++t) {
        const Key key = Order::key(y[t * pixels]);
        low = key < low ? key : low;
        high = key > high ? key : high;
        present += !Order::is_missing(key);
    }
    if (present == 0 || (present < n && !skip_nan)) {
        out[p] = NAN;
        return;
    }
    const double place = __dmul_rn(quantile / 100.0, static_cast<double>(present - 1));
    const index_t floor_of_place = static_cast<index_t>(place);
    const index_t rank = floor_of_place < present - 1 ? floor_of_place : present - 1;
    int bits = 0;
    while (bits < Order::BITS && (low ^ high) >> bits) ++bits;
    Key found = bits < 8 * static_cast<int>(sizeof(Key)) ? low >> bits << bits : 0;
    for (int bit = bits - 1; bit >= 0; --bit) {
        const Key trial = found | Key(1) << bit;  // the key has this bit if not more than `rank` are smaller
        index_t below = 0;
#pragma unroll 4
        for (index_t t = 0; t < n; ++t) below += Order::key(y[t * pixels]) < trial;
        if (below <= rank) found = trial;
    }
    index_t up_to = 0;
    Key following = ~Key(0);
#pragma unroll 4
    for (index_t t = 0; t < n; ++t) {
        const Key key = Order::key(y[t * pixels]);
        up_to += key <= found;
        following = key > found && key < following ? key : following;
    }
    if (up_to > rank + 1 || up_to == n) following = found;
    const double a = Order::value(found), b = Order::value(following), part = place - static_cast<double>(rank);
    out[p] = static_cast<float>(part == 0.0 || a == b ? a : __dadd_rn(a, __dmul_rn(part, b - a)));
}

// add_present<Pixel>: sums[p] += those of frames[0..n-1, p] that are finite, counts[p] += how many they are
//   launch   grid ceil(pixels / blockDim.x), any block, no shared memory
//   mapping  one thread per pixel, so loads coalesce
//   arrays   frames [n, pixels] Pixel, read; sums, counts [pixels] double, read and written
//   needs    n * pixels may exceed 2^31
//   numbers  double, in order of t: equal to the twin bit for bit
//   traffic  n * pixels * sizeof(Pixel) + 32 * pixels
template <typename Pixel>
__global__ void add_present(const Pixel* __restrict__ frames, index_t n, index_t pixels, double* __restrict__ sums,
                            double* __restrict__ counts) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    double sum = sums[p], count = counts[p];
#pragma unroll 4
    for (index_t t = 0; t < n; ++t) {
        const double value = static_cast<double>(frames[t * pixels + p]);
        const bool is_there = value - value == 0.0;  // neither NaN nor infinite
        sum += is_there ? value : 0.0;
        count += is_there ? 1.0 : 0.0;
    }
    sums[p] = sum;
    counts[p] = count;
}

// Level of pixel p at a frame: between two of `levels` [N, pixels]; the last is its own next one
__device__ __forceinline__ float level_at(const float* __restrict__ levels, index_t N, index_t pixels, index_t lower,
                                          float share, index_t p) {
    const float a = levels[lower * pixels + p], b = levels[(lower + 1 < N ? lower + 1 : lower) * pixels + p];
    return __fadd_rn(a, __fmul_rn(share, __fsub_rn(b, a)));
}

// between<Result>: out[t, p] = levels[lower[t], p] + shares[t] (levels[lower[t] + 1, p] - levels[lower[t], p])
//   launch   grid (ceil(pixels / blockDim.x), n), any block, no shared memory
//   mapping  one thread per pixel and frame, so loads coalesce; the two levels of frames in a row come from L2
//   arrays   levels [N, pixels], lower [n], shares [n], read; out [n, pixels] Result, written
//   needs    0 <= lower < N; n <= 65535
//   numbers  float, not contracted: equal to the twin bit for bit
//   traffic  n * pixels * sizeof(Result) + N * pixels * 4
template <typename Result>
__global__ void between(const float* __restrict__ levels, index_t N, index_t pixels, const index_t* __restrict__ lower,
                        const float* __restrict__ shares, Result* __restrict__ out) {
    const index_t p = global_thread(), t = blockIdx.y;
    if (p >= pixels) return;  // no barrier follows
    out[t * pixels + p] = level_at(levels, N, pixels, lower[t], shares[t], p);
}

template <typename Pixel> struct Wide { typedef float Type; };
template <> struct Wide<double> { typedef double Type; };

constexpr int ONLY = 0, RATIO = 1;  // and ROOT = 2: what `subtract` makes of y and its level b

// subtract<Pixel, Result, METHOD>: out = y - b, (y - b) / b or (y - b) / sqrt(b), with b as in `between`
//   launch   grid (ceil(pixels / blockDim.x), n), any block, no shared memory
//   mapping  as `between`
//   arrays   frames [n, pixels] Pixel, levels [N, pixels], lower [n], shares [n], read; out [n, pixels] Result, written
//   needs    as `between`; out may be frames
//   numbers  float, of double frames double; division and root correctly rounded: equal to the twin bit for bit
//   traffic  n * pixels * (sizeof(Pixel) + sizeof(Result)) + N * pixels * 4
template <typename Pixel, typename Result, int METHOD>
__global__ void subtract(const Pixel* frames, const float* __restrict__ levels, index_t N, index_t pixels,
                         const index_t* __restrict__ lower, const float* __restrict__ shares, Result* out) {
    typedef typename Wide<Pixel>::Type Number;
    const index_t p = global_thread(), t = blockIdx.y;
    if (p >= pixels) return;  // no barrier follows
    const Number level = level_at(levels, N, pixels, lower[t], shares[t], p);
    const Number change = static_cast<Number>(frames[t * pixels + p]) - level;
    out[t * pixels + p] = static_cast<Result>(METHOD == ONLY ? change : METHOD == RATIO ? change / level
                                                                                        : change / sqrt(level));
}
