// oasis.cu - spike inference of AR(1) calcium by pools. Twin: gpucalcium/backend/cpu/oasis.py
#include "common.cuh"

// One thread works through one trace: merging is serial in time, traces are many. Samples and pools of all traces
// are interleaved, [T, K]: while the traces of a warp stand at the same sample, their loads are neighbours.

constexpr double TOLERANCE = 1e-5;  // of the residual sum of squares against its target
constexpr int TAIL_ROUNDS = 4;      // of lambda against baseline
constexpr int MOST_TRIALS = 60, MOST_LOWERINGS = 12;
constexpr double START_PERCENTILE = 0.15;
constexpr int START_SAMPLES = 512, START_ROUNDS = 12;
constexpr double NONE = 1e300;  // no step is known to be too far

// A pool: calcium a g^j with a = v / w, v = sum_j g^j (y - beta)_{start + j}, w = sum_j g^{2 j}, gl = g^length
struct Pool {
    double v, w, gl;
    int start;
};

// The stack of pools of one trace
struct Stack {
    double *v, *w, *gl;
    int* start;
    index_t stride;

    __device__ Stack(double* pools, int* starts, index_t T, index_t K, index_t k)
        : v(pools + k), w(pools + T * K + k), gl(pools + 2 * T * K + k), start(starts + k), stride(K) {}
    __device__ Pool operator[](int i) const {
        const index_t at = i * stride;
        return Pool{v[at], w[at], gl[at], start[at]};
    }
    __device__ void put(int i, const Pool& pool) {
        const index_t at = i * stride;
        v[at] = pool.v;
        w[at] = pool.w;
        gl[at] = pool.gl;
        start[at] = pool.start;
    }
};

__device__ __forceinline__ Pool merged(const Pool& left, const Pool& right) {
    return Pool{left.v + left.gl * right.v, left.w + left.gl * left.gl * right.w, left.gl * right.gl, left.start};
}

// Whether the decay of `left` ends above the start of `right` less `penalty` g^length
__device__ __forceinline__ bool overlaps(const Pool& left, const Pool& right, double penalty) {
    return left.v * left.gl * right.w > (right.v - penalty * right.gl) * left.w;
}

// Stack on which pools are pushed: the top one stays in registers until another lies on it.
struct Builder {
    Stack& stack;
    Pool top;
    int n;  // pools, the top one included

    __device__ explicit Builder(Stack& s) : stack(s), top{0.0, 1.0, 1.0, 0}, n(0) {}
    __device__ void push(Pool pool) {
        while (n > 0 && overlaps(top, pool, 0.0)) {
            pool = merged(top, pool);
            if (--n > 0) top = stack[n - 1];
        }
        if (n == 0 && pool.v <= 0.0) return;  // calcium is 0 up to here, whatever follows
        if (n > 0) stack.put(n - 1, top);
        top = pool;
        ++n;
    }
    __device__ int finish() {
        if (n > 0) stack.put(n - 1, top);
        return n;
    }
};

// What is known of a trace: its samples, their sums less `origin`, and how the baseline is bound
template <typename Sample>
struct Trace {
    const Sample* y;
    index_t stride;
    int T;
    double g, origin, sum, squares, floor;
    bool free;

    __device__ double operator[](int t) const { return static_cast<double>(y[t * stride]); }
};

// The fit at a level; from pool `last` to the end runs one pool that starts at `tail`.
// rss + 2 slope d + curvature d^2 as beta grows by d, while the pools stay as they are.
struct Fit {
    double b, lambda, rss, slope, curvature, tail;
    int last;
};

template <typename Sample>
__device__ int build(Stack& stack, const Trace<Sample>& trace, double beta) {
    Builder builder(stack);
    for (int t = 0; t < trace.T; ++t) builder.push(Pool{trace[t] - (trace.origin + beta), 1.0, trace.g, t});
    return builder.finish();
}

// The pools after beta has grown by `rise` (>= 0: pools then merge and never split)
__device__ int raise_level(const Stack& stack, int n, double rise, double g, Stack& raised) {
    Builder builder(raised);
    for (int i = 0; i < n; ++i) {
        Pool pool = stack[i];
        pool.v -= rise * (1.0 - pool.gl) / (1.0 - g);
        builder.push(pool);
    }
    return builder.finish();
}

// The baseline, and in `held` whether its bound holds it
__device__ __forceinline__ double bounded(double b, double floor, bool& held) {
    held = b < floor;
    return held ? floor : b;
}

// Sums over pools of calcium, of what they explain of the sum of squares, and of the squared change with beta
struct Sums {
    double calcium, explained, change;

    __device__ void add(const Pool& pool, double inverse, double sign) {
        const double a = pool.v / pool.w, ones = (1.0 - pool.gl) * inverse;
        calcium += sign * a * ones;
        explained += sign * a * pool.v;
        change += sign * ones * ones / pool.w;
    }
};

// Baseline, lambda and residual of the pools at level beta, from sums over pools alone
template <typename Sample>
__device__ Fit measure(const Stack& stack, int n, const Trace<Sample>& trace, double beta, double b) {
    const double T = trace.T, inverse = 1.0 / (1.0 - trace.g);
    const double z1 = trace.sum - T * beta, z2 = trace.squares - 2.0 * beta * trace.sum + T * beta * beta;
    Sums all{0.0, 0.0, 0.0};
    for (int i = 0; i < n; ++i) all.add(stack[i], inverse, 1.0);
    Fit fit{b, 0.0, 0.0, 0.0, 0.0, 0.0, n};
    double residual = z1 - all.calcium, rest = z2 - all.explained, along = 0.0;
    bool held = !trace.free;
    if (trace.free) fit.b = bounded(beta + residual / T, trace.floor, held);
    for (int round = 0; n > 0 && round < TAIL_ROUNDS; ++round) {
        const double penalty = fmax((beta - fit.b) * inverse, 0.0);
        Sums body = all;
        Pool tail = stack[n - 1];
        body.add(tail, inverse, -1.0);
        fit.last = n - 1;
        while (fit.last > 0) {
            const Pool left = stack[fit.last - 1];
            if (!overlaps(left, tail, penalty)) break;
            body.add(left, inverse, -1.0);
            tail = merged(left, tail);
            --fit.last;
        }
        fit.tail = fmax((tail.v - penalty * tail.gl) / tail.w, 0.0);
        const double ones = (1.0 - tail.gl) * inverse;
        residual = z1 - body.calcium - fit.tail * ones;
        rest = z2 - body.explained - 2.0 * fit.tail * tail.v + fit.tail * fit.tail * tail.w;
        if (trace.free) fit.b = bounded(beta + residual / T, trace.floor, held);
        const double growth = held ? inverse : (1.0 - all.change / T) * inverse;
        const double fall = fit.tail > 0.0 ? (ones + tail.gl * growth) / tail.w : 0.0;
        fit.slope = (beta - fit.b) * body.change + fall * (tail.v - fit.tail * tail.w + (beta - fit.b) * ones);
        fit.curvature = body.change + fall * fall * tail.w;
        along = body.change + fall * ones;
    }
    if (!held) fit.curvature -= along * along / T;
    fit.lambda = (beta - fit.b) * inverse;
    fit.rss = rest + 2.0 * (beta - fit.b) * residual + (beta - fit.b) * (beta - fit.b) * T;
    return fit;
}

// Rise of beta that should bring the residual to theta: exact while no pools merge; within a bracket, by the
// parabola through its far end
__device__ double step_towards(double theta, const Fit& fit, double room, double beyond, double most) {
    const double missing = theta - fit.rss;
    double curvature = fit.curvature;
    if (room < NONE) curvature = (beyond - fit.rss - 2.0 * fit.slope * room) / (room * room);
    const double root = sqrt(fmax(fit.slope * fit.slope + curvature * missing, 0.0));
    const double step = fit.slope + root > 0.0 ? missing / (fit.slope + root) : most;
    return room < NONE ? fmin(fmax(step, 0.05 * room), 0.95 * room) : step;
}

// About the 15th percentile of the samples less their origin: every so many, to 1/4096 of their range
template <typename Sample>
__device__ double low_percentile(const Trace<Sample>& trace, double low, double high) {
    const int stride = trace.T < START_SAMPLES ? 1 : trace.T / START_SAMPLES;
    const double wanted = START_PERCENTILE * ((trace.T + stride - 1) / stride);
    for (int round = 0; round < START_ROUNDS; ++round) {
        const double middle = 0.5 * (low + high);
        int below = 0;
        for (int t = 0; t < trace.T; t += stride) below += trace[t] - trace.origin < middle;
        if (below > wanted)
            high = middle;
        else
            low = middle;
    }
    return low;
}

// Calcium and spikes of pools 0..last-1 and of the tail that starts where pool `last` does
__device__ void write(const Stack& stack, int n, const Fit& fit, int T, double g, float* c, float* s, index_t stride) {
    int t = 0;
    double a = 0.0;
    const int pools = fit.last + 1 < n ? fit.last + 1 : n;
    for (int i = 0; i <= pools; ++i) {
        Pool pool{0.0, 1.0, 0.0, T};
        if (i < pools) pool = stack[i];
        for (; t < pool.start; ++t) {
            c[t * stride] = static_cast<float>(a);
            s[t * stride] = 0.0f;
            a *= g;
        }
        if (i == pools) return;
        const double before = t > 0 ? static_cast<double>(c[(t - 1) * stride]) : 0.0;
        a = i < fit.last ? pool.v / pool.w : fit.tail;
        c[t * stride] = static_cast<float>(a);
        s[t * stride] = t > 0 ? static_cast<float>(a - g * before) : 0.0f;
        a *= g;
        ++t;
    }
}

// constrained_ar1<Sample>: calcium c and spikes s with least sum of s and residual sum of squares theta
//   launch   grid ceil(K / blockDim.x), block of one warp (few traces spread over many multiprocessors)
//   mapping  one thread per trace; it leaves when its own search has ended
//   arrays   y [T, K] Sample, g, theta [K] double, read; b [K] double, read, and written if free_b; c, s [T, K]
//            float, lambda [K] double, written; pools [2, 3, T, K] double and starts [2, T, K] int, scratch
//   needs    0 <= g < 1, T >= 1, y finite; T * K may exceed 2^31
//   numbers  all in double; fused multiply-adds differ from the twin by rounding: the same pools but for ties,
//            c to 1e-6 of its largest value
//   traffic  about T * K * (sizeof(Sample) + 28) for the first pools, 8 for c and s, and 56 a pool and step
template <typename Sample>
__global__ void constrained_ar1(const Sample* __restrict__ y, index_t K, int T, const double* __restrict__ g,
                                const double* __restrict__ theta, double* b, bool free_b, bool b_nonneg, int max_iter,
                                float* __restrict__ c, float* __restrict__ s, double* __restrict__ lambda,
                                double* pools, int* starts) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    const double target = theta[k];
    Trace<Sample> trace{y + k, K, T, g[k], static_cast<double>(y[k]), 0.0, 0.0, -INFINITY, free_b};
    double smallest = 0.0, largest = 0.0;
    for (int t = 0; t < T; ++t) {
        const double z = trace[t] - trace.origin;
        trace.sum += z;
        trace.squares += z * z;
        smallest = fmin(smallest, z);
        largest = fmax(largest, z);
    }
    if (b_nonneg) trace.floor = -trace.origin;
    const double given = b[k] - trace.origin;
    double beta = free_b ? fmax(low_percentile(trace, smallest, largest), trace.floor) : given;
    const index_t per_stack = static_cast<index_t>(T) * K;
    Stack used(pools, starts, T, K, k), spare(pools + 3 * per_stack, starts + per_stack, T, K, k);
    int n = build(used, trace, beta);
    Fit now = measure(used, n, trace, beta, given);
    double room = NONE, beyond = NONE;  // a step known to be too far, and its residual sum of squares
    double reach = 0.0;                 // 2^i - 1 ranges below the smallest sample
    for (int i = 0; free_b && i < MOST_LOWERINGS && now.rss > target * (1.0 + TOLERANCE) && beta > trace.floor; ++i) {
        room = beta;
        beyond = now.rss;
        beta = fmax(fmin(beta, smallest - reach * (largest - smallest)), trace.floor);
        room -= beta;
        reach = 2.0 * reach + 1.0;
        n = build(used, trace, beta);
        now = measure(used, n, trace, beta, given);
    }
    int accepted = 0;
    for (int i = 0; i < MOST_TRIALS && n > 0 && accepted < max_iter && now.rss < target * (1.0 - TOLERANCE); ++i) {
        const double step = step_towards(target, now, room, beyond, largest - beta);
        const int m = raise_level(used, n, step, trace.g, spare);
        const Fit then = measure(spare, m, trace, beta + step, given);
        if (then.rss > target * (1.0 + TOLERANCE)) {
            room = step;
            beyond = then.rss;
            continue;
        }
        const Stack other = used;
        used = spare;
        spare = other;
        n = m;
        now = then;
        beta += step;
        if (room < NONE) room -= step;
        ++accepted;
    }
    write(used, n, now, T, trace.g, c + k, s + k, K);
    b[k] = now.b + trace.origin;
    lambda[k] = now.lambda;
}

// ar1<Sample>: calcium and spikes of y - b for a given penalty lambda and smallest spike s_min
//   launch, mapping   as constrained_ar1
//   arrays   y [T, K] Sample, g, b, lambda, s_min [K] double, read; c, s [T, K] float, written;
//            pools [3, T, K] double and starts [T, K] int, scratch
//   needs, numbers    as constrained_ar1
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
            if (!(left.v / left.w * left.gl + least > pool.v / pool.w)) break;
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
//   launch, mapping   as constrained_ar1
//   arrays   y [T, K] Sample, order [T, K] int (times by decreasing s), g, theta, b [K] double, read; c, s [T, K]
//            float, read and overwritten; work [2, T, K] double and starts [T, K] int, scratch
//   needs, numbers    as constrained_ar1
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
//   launch, mapping   as constrained_ar1
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
