// registration.cu - rigid registration: prepare frames, weigh spectra, climb to the peak, displace, average.
// Twin: gpucalcium/backend/cpu/registration.py
#include "common.cuh"

constexpr int TAPS = 4;              // of cubic interpolation, per axis
constexpr double BICUBIC_A = -0.75;  // OpenCV's cubic
constexpr int NEWTON_STEPS = 3;      // the third moves by less than rounding
constexpr int BORDER_NAN = 0, BORDER_MIN = 1, BORDER_COPY = 2, BORDER_REFLECT = 3;

// What a displacement means for one frame: interpolation weights and first source pixel, rows then columns.
struct Move {
    float weights[2][TAPS];
    int start[2];
    float lowest, highest;  // numbers of the frame itself
};

__device__ __forceinline__ bool is_finite(float v) { return fabsf(v) < INFINITY; }

__device__ __forceinline__ int reflected(int i, int n) {
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return i < n ? i : 2 * n - 1 - i;
}

// First and one past the last position of an axis that came from inside the frame.
__device__ __forceinline__ int first_valid(float shift, int n) {
    return min(max(static_cast<int>(ceilf(shift)), 0), n - 1);
}
__device__ __forceinline__ int end_valid(float shift, int n) {
    return max(n - max(static_cast<int>(ceilf(-shift)), 0), first_valid(shift, n) + 1);
}

// prepare<Pixel>: out = frame - offset, or fill where the pixel is not finite; missing[t] = how many were not
//   launch   grid n, block a multiple of 32, no shared memory
//   mapping  one block per frame, threads stride over its pixels
//   arrays   frames [n, pixels] Pixel, fill [pixels] float, read; out [n, pixels] float, missing [n] int, written
//   needs    pixels >= 1; n * pixels may exceed 2^31
//   numbers  float: equal to the twin bit for bit
//   traffic  n * pixels * (sizeof(Pixel) + 4) + 4 * pixels (fill stays in L2)
template <typename Pixel>
__global__ void prepare(const Pixel* __restrict__ frames, index_t pixels, const float* __restrict__ fill,
                        float offset, float* __restrict__ out, int* __restrict__ missing) {
    const index_t first = blockIdx.x * pixels;
    int lost = 0;
    for (index_t p = threadIdx.x; p < pixels; p += blockDim.x) {
        const float v = static_cast<float>(frames[first + p]) - offset;
        const bool finite = is_finite(v);
        out[first + p] = finite ? v : fill[p];
        lost += !finite;
    }
    lost = block_sum(lost);
    if (threadIdx.x == 0) missing[blockIdx.x] = lost;
}

// weigh: out[t, r, k] = spectra[t, rows[r], k] * kernel[r, k]: cross-power at the kept frequencies alone
//   launch   grid ceil(n * kept_rows * width / blockDim.x), no shared memory
//   mapping  one thread per product; neighbours read neighbours
//   arrays   spectra [n, all_rows, columns] float2, rows [kept_rows] long long, kernel [kept_rows, width]
//            float2, read; out [n, kept_rows, width] float2, written
//   needs    width <= columns; 0 <= rows < all_rows
//   numbers  float
//   traffic  16 * n * kept_rows * width
__global__ void weigh(const float2* __restrict__ spectra, index_t n, index_t all_rows, index_t columns,
                      const index_t* __restrict__ rows, index_t kept_rows, index_t width,
                      const float2* __restrict__ kernel, float2* __restrict__ out) {
    const index_t i = global_thread();
    if (i >= n * kept_rows * width) return;  // no barrier follows
    const index_t k = i % width, r = i / width % kept_rows, t = i / (width * kept_rows);
    const float2 x = spectra[(t * all_rows + rows[r]) * columns + k], g = kernel[r * width + k];
    out[i] = {x.x * g.x - x.y * g.y, x.x * g.y + x.y * g.x};
}

// Solve -H step = gradient by Cholesky; along an axis where c is not concave there is no step.
template <int DIMS>
__device__ void newton_step(const double (&gradient)[DIMS], const double (&hessian)[DIMS][DIMS], double (&step)[DIMS]) {
    double factor[DIMS][DIMS], flat = 1e-12;
    for (int a = 0; a < DIMS; ++a) flat = fmax(flat, 1e-6 * fabs(hessian[a][a]));
    for (int a = 0; a < DIMS; ++a)
        for (int b = 0; b <= a; ++b) {
            double v = -hessian[a][b];
            for (int k = 0; k < b; ++k) v -= factor[a][k] * factor[b][k];
            factor[a][b] = a > b ? v / factor[b][b] : v > flat ? sqrt(v) : static_cast<double>(INFINITY);
        }
    for (int a = 0; a < DIMS; ++a) {
        double v = gradient[a];
        for (int k = 0; k < a; ++k) v -= factor[a][k] * step[k];
        step[a] = v / factor[a][a];
    }
    for (int a = DIMS - 1; a >= 0; --a) {
        double v = step[a];
        for (int k = a + 1; k < DIMS; ++k) v -= factor[k][a] * step[k];
        step[a] = v / factor[a][a];
    }
}

// climb<LEADING>: Newton's method for the maximum of c(s) = Re sum of products exp(i w.s), from `guess`
//   launch   grid n, block a multiple of 32, shared 8 * width bytes
//   mapping  one block per frame: a warp takes a row of the spectrum, a lane every 32nd frequency of it
//   arrays   products [n, rows, width] float2, leading [LEADING, rows] and last [width] double (angular
//            frequencies), guess [n, LEADING + 1] double, read; shifts [n, LEADING + 1] and peaks [n] float, written
//   needs    rows, width >= 1
//   numbers  rows are summed in float, their sums in double, in a fixed tree: shifts agree with the twin to 1e-4
//   traffic  8 * n * rows * width from DRAM, and three times more from L2
template <int LEADING>
__global__ void climb(const float2* __restrict__ products, index_t rows, int width,
                      const double* __restrict__ leading, const double* __restrict__ last,
                      const double* __restrict__ guess, float* __restrict__ shifts, float* __restrict__ peaks) {
    constexpr int DIMS = LEADING + 1;
    DYNAMIC_SHARED(float2, phase);  // of the last axis
    const float2* const mine = products + blockIdx.x * rows * width;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    double s[DIMS];
    for (int a = 0; a < DIMS; ++a) s[a] = guess[blockIdx.x * DIMS + a];
    for (int newton = 0;; ++newton) {
        for (int k = threadIdx.x; k < width; k += blockDim.x) {
            double sine, cosine;
            sincos(last[k] * s[LEADING], &sine, &cosine);
            phase[k] = {static_cast<float>(cosine), static_cast<float>(sine)};
        }
        __syncthreads();
        double value = 0, gradient[DIMS] = {}, hessian[DIMS][DIMS] = {};
        for (index_t r = warp; r < rows; r += warps) {
            double angle = 0, w[LEADING];
            for (int a = 0; a < LEADING; ++a) {
                w[a] = leading[a * rows + r];
                angle += w[a] * s[a];
            }
            float sine, cosine, re = 0, im = 0, wre = 0, wim = 0, wwre = 0;
            sincosf(static_cast<float>(angle), &sine, &cosine);
            for (int k = lane; k < width; k += WARP) {
                const float2 x = mine[r * width + k], e = phase[k];
                const float u = cosine * e.x - sine * e.y, v = sine * e.x + cosine * e.y;
                const float real = u * x.x - v * x.y, imag = v * x.x + u * x.y;
                const float wk = static_cast<float>(last[k]);
                re += real;
                im += imag;
                wre += wk * real;
                wim += wk * imag;
                wwre += wk * wk * real;
            }
            value += re;
            gradient[LEADING] -= wim;
            hessian[LEADING][LEADING] -= wwre;
            for (int a = 0; a < LEADING; ++a) {
                gradient[a] -= w[a] * im;
                hessian[LEADING][a] -= w[a] * wre;
                for (int b = 0; b <= a; ++b) hessian[a][b] -= w[a] * w[b] * re;
            }
        }
        value = block_sum(value);  // its barriers also free `phase`
        if (newton == NEWTON_STEPS) {
            if (threadIdx.x == 0) {
                for (int a = 0; a < DIMS; ++a) shifts[blockIdx.x * DIMS + a] = static_cast<float>(s[a]);
                peaks[blockIdx.x] = static_cast<float>(value);
            }
            return;  // the whole block
        }
        for (int a = 0; a < DIMS; ++a) {
            gradient[a] = block_sum(gradient[a]);
            for (int b = 0; b <= a; ++b) hessian[a][b] = block_sum(hessian[a][b]);
        }
        double step[DIMS];
        newton_step<DIMS>(gradient, hessian, step);
        for (int a = 0; a < DIMS; ++a) {
            const double from = guess[blockIdx.x * DIMS + a], move = fmin(fmax(step[a], -0.5), 0.5);
            s[a] = fmin(fmax(s[a] + move, from - 1.0), from + 1.0);
        }
    }
}

// plan_moves<Pixel>: interpolation weights and range of each frame
//   launch   grid n, block a multiple of 32, no shared memory
//   mapping  one block per frame, threads stride over its pixels
//   arrays   frames [n, pixels] Pixel, shifts [n, 2] float, read; moves [n] Move, written
//   needs    pixels >= 1
//   numbers  NaN counts neither as smallest nor largest; none at all: inf and -inf. Equal to the twin bit for bit
//   traffic  n * pixels * sizeof(Pixel)
template <typename Pixel>
__global__ void plan_moves(const Pixel* __restrict__ frames, index_t pixels, const float* __restrict__ shifts,
                           Move* __restrict__ moves) {
    float lowest = INFINITY, highest = -INFINITY;
    for (index_t p = threadIdx.x; p < pixels; p += blockDim.x) {
        const float v = static_cast<float>(frames[blockIdx.x * pixels + p]);
        lowest = v < lowest ? v : lowest;
        highest = v > highest ? v : highest;
    }
    lowest = block_reduce(lowest, Smallest(), INFINITY);
    highest = block_reduce(highest, Largest(), -INFINITY);
    if (threadIdx.x != 0) return;  // no barrier follows
    Move move;
    for (int axis = 0; axis < 2; ++axis) {
        const double back = -static_cast<double>(shifts[2 * blockIdx.x + axis]), whole = floor(back);
        for (int i = 0; i < TAPS; ++i) {
            const double x = fabs(back - whole + 1.0 - i), a = BICUBIC_A;
            move.weights[axis][i] = static_cast<float>(
                x <= 1.0 ? (a + 2.0) * x * x * x - (a + 3.0) * x * x + 1.0
                         : a * x * x * x - 5.0 * a * x * x + 8.0 * a * x - 4.0 * a);
        }
        move.start[axis] = static_cast<int>(whole) - 1;
    }
    move.lowest = lowest;
    move.highest = highest;
    moves[blockIdx.x] = move;
}

// displace<Pixel>: out[t, r, c] = bicubic frame[t] at (r, c) - shift, clipped to the frame's range, minus offset
//   launch   grid (ceil(d2 / 32), ceil(d1 / 8), n), block (32, 8), no shared memory
//   mapping  one thread per pixel; a warp reads four runs of 35 neighbours, which L1 shares among its lanes and rows
//   arrays   frames [n, d1, d2] Pixel, shifts [n, 2] float, moves [n] Move, read; out [n, d1, d2] float, written
//   needs    moves from plan_moves; border one of BORDER_*
//   numbers  taps in the twin's order: agrees to 1e-6 of the largest value (fused multiply-add); NaN where a
//            tap of non-zero weight is
//   traffic  n * d1 * d2 * (sizeof(Pixel) + 4)
template <typename Pixel>
__global__ void displace(const Pixel* __restrict__ frames, int d1, int d2, const float* __restrict__ shifts,
                         const Move* __restrict__ moves, float offset, int border, float* __restrict__ out) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    const index_t t = blockIdx.z, pixels = static_cast<index_t>(d1) * d2;
    if (r >= d1 || c >= d2) return;  // no barrier follows
    const Move move = moves[t];
    int row = r, column = c;
    if (border != BORDER_REFLECT) {
        row = min(max(r, first_valid(shifts[2 * t], d1)), end_valid(shifts[2 * t], d1) - 1);
        column = min(max(c, first_valid(shifts[2 * t + 1], d2)), end_valid(shifts[2 * t + 1], d2) - 1);
        if (border != BORDER_COPY && (row != r || column != c)) {
            out[t * pixels + static_cast<index_t>(r) * d2 + c] = border == BORDER_NAN ? NAN : move.lowest - offset;
            return;
        }
    }
    const Pixel* const frame = frames + t * pixels;
    float v = 0;
    for (int j = 0; j < TAPS; ++j) {
        if (move.weights[1][j] == 0) continue;  // a whole-pixel shift must not meet NaN beside the pixel
        const int from = reflected(column + move.start[1] + j, d2);
        float down = 0;
        for (int i = 0; i < TAPS; ++i)
            if (move.weights[0][i] != 0)
                down += move.weights[0][i] *
                        static_cast<float>(frame[static_cast<index_t>(reflected(row + move.start[0] + i, d1)) * d2 + from]);
        v += move.weights[1][j] * down;
    }
    v = v < move.lowest ? move.lowest : v;
    v = v > move.highest ? move.highest : v;
    out[t * pixels + static_cast<index_t>(r) * d2 + c] = v - offset;
}

// mark_border: overwrite the pixels of displaced volumes that came from outside
//   launch   grid n, block a multiple of 32, no shared memory
//   mapping  one block per volume, threads stride over its voxels
//   arrays   volumes [n, d0, d1, d2] float, read and written; moves [n, 3] float, read
//   needs    border BORDER_NAN, _MIN or _COPY
//   numbers  equal to the twin bit for bit
//   traffic  at most 8 * n * d0 * d1 * d2
__global__ void mark_border(float* __restrict__ volumes, int d0, int d1, int d2, const float* __restrict__ moves,
                            int border) {
    const index_t voxels = static_cast<index_t>(d0) * d1 * d2;
    float* const volume = volumes + blockIdx.x * voxels;
    const float* const move = moves + 3 * static_cast<index_t>(blockIdx.x);
    float lowest = INFINITY;
    if (border == BORDER_MIN) {
        for (index_t p = threadIdx.x; p < voxels; p += blockDim.x) lowest = volume[p] < lowest ? volume[p] : lowest;
        lowest = block_reduce(lowest, Smallest(), INFINITY);
    }
    const int dims[3] = {d0, d1, d2};
    int first[3], end[3];
    for (int a = 0; a < 3; ++a) {
        first[a] = first_valid(move[a], dims[a]);
        end[a] = end_valid(move[a], dims[a]);
    }
    for (index_t p = threadIdx.x; p < voxels; p += blockDim.x) {
        const int at[3] = {static_cast<int>(p / d2 / d1), static_cast<int>(p / d2 % d1), static_cast<int>(p % d2)};
        index_t nearest = 0;  // voxel inside; nobody writes these
        for (int a = 0; a < 3; ++a) nearest = nearest * dims[a] + min(max(at[a], first[a]), end[a] - 1);
        if (nearest != p) volume[p] = border == BORDER_NAN ? NAN : border == BORDER_MIN ? lowest : volume[nearest];
    }
}

// add_frames<Pixel>: sums[p] += sum over t of finite frames[t, p], in order of t; counts[p] += how many
//   launch   grid ceil(pixels / blockDim.x), no shared memory
//   mapping  one thread per pixel
//   arrays   frames [n, pixels] Pixel, read; sums [pixels] double, counts [pixels] int, read and written
//   needs    n >= 0
//   numbers  double: equal to the twin bit for bit
//   traffic  n * pixels * sizeof(Pixel) + 24 * pixels
template <typename Pixel>
__global__ void add_frames(const Pixel* __restrict__ frames, index_t n, index_t pixels, double* __restrict__ sums,
                           int* __restrict__ counts) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    double total = sums[p];
    int count = counts[p];
    for (index_t t = 0; t < n; ++t) {
        const float v = static_cast<float>(frames[t * pixels + p]);
        total += is_finite(v) ? static_cast<double>(v) : 0.0;
        count += is_finite(v);
    }
    sums[p] = total;
    counts[p] = count;
}

// add_squares<Pixel>: sums[p] += sum over t of (frames[t, p] - mean[p])^2 where finite; the rest as add_frames
template <typename Pixel>
__global__ void add_squares(const Pixel* __restrict__ frames, index_t n, index_t pixels,
                            const float* __restrict__ mean, double* __restrict__ sums) {
    const index_t p = global_thread();
    if (p >= pixels) return;  // no barrier follows
    double total = sums[p];
    for (index_t t = 0; t < n; ++t) {
        const float v = static_cast<float>(frames[t * pixels + p]) - mean[p];
        total += is_finite(v) ? static_cast<double>(v) * v : 0.0;
    }
    sums[p] = total;
}

// add_power: total[k] += sum over t of |spectra[t, k]|^2, in order of t
//   launch   grid ceil(values / blockDim.x), no shared memory
//   mapping  one thread per frequency
//   arrays   spectra [n, values] float2, read; total [values] double, read and written
//   needs    n >= 0
//   numbers  double
//   traffic  8 * n * values
__global__ void add_power(const float2* __restrict__ spectra, index_t n, index_t values, double* __restrict__ total) {
    const index_t k = global_thread();
    if (k >= values) return;  // no barrier follows
    double sum = total[k];
    for (index_t t = 0; t < n; ++t) {
        const float2 x = spectra[t * values + k];
        sum += static_cast<double>(x.x) * x.x + static_cast<double>(x.y) * x.y;
    }
    total[k] = sum;
}
