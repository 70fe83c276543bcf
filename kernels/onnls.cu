// onnls.cu - spikes of AR(2) calcium by non-negative least squares. Twin: gpucalcium/backend/cpu/onnls.py
#include "common.cuh"

// One thread works through one trace, with rows of scratch of T + 2 samples, interleaved over traces. The active set
// grows and shrinks by Lawson & Hanson's rules; least squares on it is a recursion over its spikes.

constexpr int MOST_ROUNDS = 1000;  // of additions; a hundred is rare
constexpr double NO_DECAY = 1e-30;  // a slower root below which what there is at t = 0 is gone at t = 1
constexpr int APART = 8;           // frames: spikes added in one round are local maxima of the gradient over this distance

// y - b less what a unit of calcium at t costs: lambda (1 - g1 - g2), at the last two samples more
__device__ __forceinline__ double datum_of(double y, int t, int T, double g1, double g2, double b, double lambda) {
    const int left = T - 1 - t;
    return y - b - lambda * (1.0 - (left > 0 ? g1 : 0.0) - (left > 1 ? g2 : 0.0));
}

// The slower root of x^2 - g1 x - g2
__device__ __forceinline__ double slower_root(double g1, double g2) {
    return 0.5 * (g1 + sqrt(fmax(g1 * g1 + 4.0 * g2, 0.0)));
}

enum Row { H, HH, HG, CORRELATION, CALCIUM, GRADIENT, OLD, NEW, FREE, BOUND, ROWS };

template <typename Sample>
struct Problem {
    const Sample* y;
    const unsigned char* allowed;
    double* scratch;
    int* times;  // of the spikes in the active set, increasing; rows OLD and NEW hold their sizes
    index_t stride;
    int T, n;
    double g1, g2, b, lambda;
    double slow, fast;  // roots of x^2 - g1 x - g2. Calcium at t = 0 is a spike that decays by the slow one

    __device__ double& at(Row row, int t) { return scratch[(static_cast<index_t>(row) * (T + 2) + t) * stride]; }
    __device__ int& time(int i) { return times[i * stride]; }
    __device__ bool may(int t) const { return allowed[t * stride] != 0; }
    __device__ int length(int i) { return (i + 1 < n ? time(i + 1) : T) - time(i); }

    __device__ double datum(int t) const {
        return datum_of(static_cast<double>(y[t * stride]), t, T, g1, g2, b, lambda);
    }

    // Impulse response h, sums of h_j^2 and h_j h_{j-1}, and correlations of the data with h; the largest of these
    __device__ double prepare() {
        double last = 1.0, before = 0.0, squares = 0.0, products = 0.0;
        for (int j = 0; j <= T; ++j) {
            at(H, j) = last;
            at(HH, j) = squares;
            at(HG, j) = products;
            squares += last * last;
            products += last * before;
            const double next = g1 * last + g2 * before;
            before = last;
            last = next;
        }
        at(CORRELATION, T) = at(CORRELATION, T + 1) = 0.0;
        double largest = 0.0, later = 0.0, latest = 0.0;
        for (int t = T - 1; t >= 0; --t) {
            const double now = datum(t) + g1 * later + g2 * latest;
            latest = later;
            later = now;
            at(CORRELATION, t) = now;
            largest = fmax(largest, fabs(now));
        }
        return largest;
    }

    __device__ void calcium() {
        double last = 0.0, before = 0.0;
        for (int t = 0, i = 0; t < T; ++t) {
            double now = g1 * last + g2 * before;
            before = last;
            if (i < n && time(i) == t) {
                now += at(OLD, i++);
                if (t == 0 && slow > NO_DECAY) before = now / slow;  // as if it had decayed before
            }
            last = now;
            at(CALCIUM, t) = now;
        }
    }

    // By how much a spike at t would lower the cost, per unit; from the residual, backwards
    __device__ void gradient() {
        calcium();
        double later = 0.0, latest = 0.0;
        for (int t = T - 1; t >= 0; --t) {
            const double now = datum(t) - at(CALCIUM, t) + g1 * later + g2 * latest;
            latest = later;
            later = now;
            at(GRADIENT, t) = now;
        }
        at(GRADIENT, 0) -= fast * latest;
    }

    __device__ void insert(int t) {
        int i = n;
        while (i > 0 && time(i - 1) >= t) --i;
        if (i < n && time(i) == t) return;  // its gradient is zero but for rounding
        for (int j = n; j > i; --j) {
            time(j) = time(j - 1);
            at(OLD, j) = at(OLD, j - 1);
        }
        time(i) = t;
        at(OLD, i) = 0.0;
        ++n;
    }

    // Whether the gradient at t is the largest of those allowed within APART frames, and the first of its size
    __device__ bool leads(int t) {
        const double value = at(GRADIENT, t);
        const int end = t + APART < T ? t + APART : T - 1;
        for (int u = t - APART > 0 ? t - APART : 0; u <= end; ++u)
            if (may(u) && (at(GRADIENT, u) > value || (at(GRADIENT, u) == value && u < t))) return false;
        return true;
    }

    // Start from the spikes of s, and from the calcium in c at t = 0
    __device__ void take_up(const float* c, const float* s) {
        for (int t = 0; t < T; ++t) {
            const float spike = t > 0 ? s[t * stride] : c[0];
            if (!(spike > 0.0f)) continue;
            time(n) = t;
            at(OLD, n++) = spike;
        }
        settle();
    }

    // Insert the allowed local maxima of the gradient (or only the largest) with spike 0
    __device__ void add(double smallest, bool single) {
        int best = -1;
        double value = smallest;
        for (int t = 0; t < T; ++t) {
            if (!may(t) || !(at(GRADIENT, t) > (single ? value : smallest))) continue;
            if (single) {
                best = t;
                value = at(GRADIENT, t);
            } else if (leads(t)) {
                insert(t);
                t += APART;
            }
        }
        if (best >= 0) insert(best);
    }

    // sum_j h_j z_{t+j}, j < length: what CORRELATION holds beyond is itself two values of it
    __device__ double moment(int t, int length) {
        if (length <= 0) return 0.0;
        const int after = t + length + 1 < T + 1 ? t + length + 1 : T + 1;
        return at(CORRELATION, t) - at(H, length) * at(CORRELATION, t + length) -
               g2 * at(H, length - 1) * at(CORRELATION, after);
    }

    // Row NEW: spikes at the active times without bounds. From spike i to the next calcium is h_j u + g2 h_{j-1} p,
    // u its start and p the sample before. The cost of all that follows is alpha p^2 / 2 - gamma p + const.
    __device__ void least_squares() {
        double alpha = 0.0, gamma = 0.0;
        for (int i = n - 1; i >= 0; --i) {
            const int t = time(i), l = length(i);
            const double e = l > 1 ? g2 * at(H, l - 2) : 0.0;
            double a = at(H, l - 1), own = moment(t, l), square = at(HH, l);  // the last sample is a u + e p
            const double cross = g2 * at(HG, l) + alpha * a * e;
            if (t == 0) {  // slow^j = h_j - fast h_{j-1}
                a -= l > 1 ? fast * at(H, l - 2) : 0.0;
                own -= fast * moment(1, l - 1);
                square += fast * fast * at(HH, l - 1) - 2.0 * fast * at(HG, l);
            }
            const double pull = own + gamma * a, stiffness = square + alpha * a * a;
            at(FREE, i) = pull / stiffness;
            at(BOUND, i) = cross / stiffness;
            gamma = g2 * moment(t + 1, l - 1) + gamma * e - pull * cross / stiffness;
            alpha = g2 * g2 * at(HH, l - 1) + alpha * e * e - cross * cross / stiffness;
        }
        double last = 0.0, before = 0.0;  // the two samples before the spike
        for (int i = 0; i < n; ++i) {
            const int l = length(i);
            const double u = at(FREE, i) - at(BOUND, i) * last;
            at(NEW, i) = u - g1 * last - g2 * before;
            if (time(i) == 0 && slow > NO_DECAY) last = u / slow;
            const double end = at(H, l - 1) * u + (l > 1 ? g2 * at(H, l - 2) * last : 0.0);
            before = l > 2 ? at(H, l - 2) * u + g2 * at(H, l - 3) * last : (l == 2 ? u : last);
            last = end;
        }
    }

    // Least squares on the active times; those whose spike would be negative are removed
    __device__ void settle() {
        while (n > 0) {
            least_squares();
            double step = 1.0;
            bool fresh = false;
            for (int i = 0; i < n; ++i) {
                const double now = at(OLD, i), then = at(NEW, i);
                if (then > 0.0) continue;
                fresh = fresh || now == 0.0;
                if (now > 0.0) step = fmin(step, now / (now - then));
            }
            const bool done = step == 1.0 && !fresh;
            int kept = 0;
            for (int i = 0; i < n; ++i) {
                const double now = at(OLD, i), then = at(NEW, i);
                // a spike just added that wants to be negative goes first, at no cost
                const double value = done ? then : (fresh ? now : now + step * (then - now));
                if (!done && then <= 0.0 && (fresh ? now == 0.0 : value <= 1e-12 * now)) continue;
                time(kept) = time(i);
                at(OLD, kept++) = fmax(value, 0.0);
            }
            n = kept;
            if (done) return;
        }
    }
};

// nnls_ar2<Sample>: c and s that minimise |y - b - c|^2 / 2 + lambda sum s over s >= 0, s = 0 where not allowed
//   launch   grid ceil(K / blockDim.x), block of one warp (few traces spread over many multiprocessors)
//   mapping  one thread per trace; it leaves when its own active set has settled
//   arrays   y [T, K] Sample, allowed [T, K] unsigned char, g [K, 2], b, lambda [K] double, read; c, s [T, K] float,
//            written, and where `warm` read: the spikes to start from; scratch [10, T + 2, K] double and times [T + 2, K] int
//   needs    T >= 1, y finite, roots of g real and within 0..1
//   numbers  double; fused multiply-adds differ from the twin by rounding: the same spikes but for ties, c to 1e-6
//   traffic  about 100 * T * K for tables and results, 40 * T * K a round; rounds are about ten
template <typename Sample>
__global__ void nnls_ar2(const Sample* __restrict__ y, const unsigned char* __restrict__ allowed, index_t K, int T,
                         const double* __restrict__ g, const double* __restrict__ b,
                         const double* __restrict__ lambda, double tolerance, bool warm, float* c, float* s,
                         double* scratch, int* times) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    Problem<Sample> problem{y + k,  allowed + k, scratch + k, times + k, K, T, 0,
                            g[2 * k], g[2 * k + 1], b[k], lambda[k], 0.0, 0.0};
    problem.slow = slower_root(problem.g1, problem.g2);
    problem.fast = problem.g1 - problem.slow;
    const double smallest = tolerance * problem.prepare();
    if (warm) problem.take_up(c + k, s + k);
    bool single = false;
    for (int round = 0; round < MOST_ROUNDS; ++round) {
        problem.gradient();
        const int before = problem.n;
        problem.add(smallest, single);
        if (problem.n == before) break;
        problem.settle();
        single = problem.n <= before && !single;
    }
    problem.calcium();
    for (int t = 0, i = 0; t < T; ++t) {
        const bool spike = i < problem.n && problem.time(i) == t;
        c[t * K + k] = static_cast<float>(problem.at(CALCIUM, t));
        s[t * K + k] = spike && t > 0 ? static_cast<float>(problem.at(OLD, i)) : 0.0f;
        i += spike;
    }
}

// gradient_ar2<Sample>: by how much a spike at t would lower the cost of nnls_ar2 per unit; from the residual, backwards
//   launch, mapping   as nnls_ar2
//   arrays   y [T, K] Sample, c [T, K] float, g [K, 2], b, lambda [K] double, read; gradient [T, K] double, written
//   needs    as nnls_ar2
//   numbers  double; fused multiply-adds differ from the twin by rounding
//   traffic  T * K * (sizeof(Sample) + 12)
template <typename Sample>
__global__ void gradient_ar2(const Sample* __restrict__ y, const float* __restrict__ c, index_t K, int T,
                             const double* __restrict__ g, const double* __restrict__ b,
                             const double* __restrict__ lambda, double* __restrict__ gradient) {
    const index_t k = global_thread();
    if (k >= K) return;  // no barrier follows
    const double g1 = g[2 * k], g2 = g[2 * k + 1];
    double later = 0.0, latest = 0.0;
    for (int t = T - 1; t >= 0; --t) {
        const double left = datum_of(static_cast<double>(y[t * K + k]), t, T, g1, g2, b[k], lambda[k]) - c[t * K + k];
        const double now = left + g1 * later + g2 * latest;
        latest = later;
        later = now;
        gradient[t * K + k] = now;
    }
    gradient[k] -= (g1 - slower_root(g1, g2)) * latest;
}
