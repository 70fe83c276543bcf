// oasis.cu - spikes of AR(1) calcium by pools, for given penalties. Twin: gpucalcium/backend/cpu/oasis.py
#include "pools.cuh"

// One thread works through one trace: merging is serial in time, traces are many. Samples and pools of all traces are
// interleaved, [T, K]: while the traces of a warp stand at the same sample, their loads are neighbours.

// ar1<Sample>: calcium and spikes of y - b for a given penalty lambda and smallest spike s_min
//   launch   grid ceil(K / blockDim.x), block of one warp (few traces spread over many multiprocessors)
//   mapping  one thread per trace
//   arrays   y [T, K] Sample, g, b, lambda, s_min [K] double, read; c, s [T, K] float, written;
//            pools [3, T, K] double and starts [T, K] int, scratch
//   needs    0 <= g < 1, T >= 1, y finite; T * K may exceed 2^31
//   numbers  all in double; fused multiply-adds differ from the twin by rounding: the same pools but for ties
//   traffic  T * K * (sizeof(Sample) + 28 + 8)
template <typename Sample>
__global__ void ar1(const Sample* __restrict__ y, index_t K, int T, const double* __restrict__ g,
                    const double* __restrict__ b, const double* __restrict__ lambda,
                    const double* __restrict__ s_min, float* __restrict__ c, float* __restrict__ s, double* pools,
                    int* starts) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    const double decay = g[k], level = b[k] + lambda[k] * (1.0 - decay), least = s_min[k];
    Stack stack(pools, starts, T, K, k);
    int n = 0;
    for (int t = 0; t < T; ++t) {
        const double last = t == T - 1 ? lambda[k] * decay : 0.0;
        Pool pool{static_cast<double>(y[t * K + k]) - level - last, 1.0, decay, t};
        while (n > 0) {
            const Pool left = stack[n - 1];
            // the spike between them times both w, which spares two divisions
            if (!(left.v * left.gl * pool.w + least * left.w * pool.w > pool.v * left.w)) break;
            pool = merged(left, pool);
            --n;
        }
        stack.put(n++, pool);
    }
    double before = 0.0;
    for (int i = 0, t = 0; i < n; ++i) {
        const Pool pool = stack[i];
        const int end = i + 1 < n ? stack[i + 1].start : T;
        double a = pool.v / pool.w;
        if (a < (i > 0 ? least : 0.0) || a < 0.0) a = 0.0;
        s[t * K + k] = t > 0 ? static_cast<float>(fmax(a - decay * before, 0.0)) : 0.0f;
        for (; t < end; ++t) {
            if (t > pool.start) s[t * K + k] = 0.0f;
            c[t * K + k] = static_cast<float>(a);
            before = a;
            a *= decay;
        }
    }
}

// v and w of the pool from `left` to `right` (exclusive), from tails[t] = sum_j g^j (y - b)_{t + j} and powers of g
struct Moments {
    const double *tails, *powers;
    index_t stride;
    int T;
    double g;

    __device__ Pool operator()(int left, int right) const {
        const double decayed = right - left < T ? powers[(right - left) * stride] : powers[(T - 1) * stride] * g;
        const double beyond = right < T ? decayed * tails[right * stride] : 0.0;
        return Pool{tails[left * stride] - beyond, (1.0 - decayed * decayed) / (1.0 - g * g), decayed, left};
    }
    // By how much a pool lowers the residual sum of squares
    __device__ double explained(int left, int right) const {
        const Pool pool = (*this)(left, right);
        return pool.v > 0.0 ? pool.v * pool.v / pool.w : 0.0;
    }
};

// greedy_ar1<Sample>: the spikes of s by decreasing size, refitted without penalty, until the residual is below theta
//   launch, mapping   as ar1
//   arrays   y [T, K] Sample, order [T, K] int (times by decreasing s), g, theta, b [K] double, read; c, s [T, K]
//            float, read and overwritten; work [2, T, K] double and starts [T, K] int, scratch
//   needs    0 <= g < 1, T >= 1, y finite; T * K may exceed 2^31
//   numbers  all in double; fused multiply-adds differ from the twin by rounding: the same pools but for ties
//   traffic  T * K * (sizeof(Sample) + 44), and 4 a pool and spike for the list of starts
template <typename Sample>
__global__ void greedy_ar1(const Sample* __restrict__ y, const int* __restrict__ order, index_t K, int T,
                           const double* __restrict__ g, const double* __restrict__ theta,
                           const double* __restrict__ b, float* c, float* s, double* work, int* starts) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    const double decay = g[k], target = theta[k];
    double *tails = work + k, *powers = work + T * K + k;
    int* start = starts + k;
    double tail = 0.0, power = 1.0, squares = 0.0;
    for (int t = T - 1; t >= 0; --t) {
        const double z = static_cast<double>(y[t * K + k]) - b[k];
        tail = z + decay * tail;
        tails[t * K] = tail;
        squares += z * z;
    }
    for (int t = 0; t < T; ++t) {
        powers[t * K] = power;
        power *= decay;
    }
    const Moments moments{tails, powers, K, T, decay};
    int n = 1;
    start[0] = 0;
    double rss = squares - moments.explained(0, T);
    for (int i = 0; i < T && rss >= target; ++i) {
        const int at = order[i * K + k];
        if (!(s[at * K + k] > 0.0f)) break;
        int place = n;
        while (start[(place - 1) * K] > at) --place;
        const int left = start[(place - 1) * K], right = place < n ? start[place * K] : T;
        rss += moments.explained(left, right) - moments.explained(left, at) - moments.explained(at, right);
        for (int j = n; j > place; --j) start[j * K] = start[(j - 1) * K];
        start[place * K] = at;
        ++n;
    }
    double before = 0.0;
    for (int i = 0; i < n; ++i) {
        const int first = start[i * K], end = i + 1 < n ? start[(i + 1) * K] : T;
        const Pool pool = moments(first, end);
        double a = fmax(pool.v / pool.w, 0.0);
        for (int t = first; t < end; ++t) {
            s[t * K + k] = t == first && i > 0 ? static_cast<float>(a - decay * before) : 0.0f;
            c[t * K + k] = static_cast<float>(a);
            before = a;
            a *= decay;
        }
    }
}

// take_start: moves the calcium at t = 0, and its decay c1 decay^t, out of c into c1
//   launch, mapping   as ar1
//   arrays   c [K, T] float, read and written; decay [K] double, read; c1 [K] double, written
//   numbers  double, rounded once a sample: equal to the twin bit for bit but for fused multiply-adds
//   traffic  8 a sample until the decay has run out
__global__ void take_start(float* __restrict__ c, index_t K, index_t T, const double* __restrict__ decay,
                           double* __restrict__ c1) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    double left = c[k * T];
    c1[k] = left;
    for (index_t t = 0; t < T && left > 0.0; ++t) {
        c[k * T + t] = static_cast<float>(fmax(c[k * T + t] - left, 0.0));
        left *= decay[k];
    }
}
