// oasis_search.cu - penalty, baseline and spikes of AR(1) calcium by its noise. Twin: gpucalcium/backend/cpu/oasis.py
#include "pools.cuh"

// One thread works through one segment of a trace: merging pools is serial in time, but associative. Samples and pools of
// all segments are interleaved, [length, columns]: while the threads of a warp stand at the same sample, their loads are
// neighbours.

constexpr double TOLERANCE = 1e-5;  // of the residual sum of squares against its target
constexpr int TAIL_ROUNDS = 4;      // of lambda against baseline
constexpr int MOST_TRIALS = 60, MOST_LOWERINGS = 12;
constexpr double START_PERCENTILE = 0.15;
constexpr int START_SAMPLES = 512, START_ROUNDS = 12;
constexpr int BLOCK = 128;  // threads of constrained_ar1: its shared memory stays below 48 KiB
constexpr double NONE = 1e300;  // no step is known to be too far

// Stack on which pools are pushed: the top one stays in registers until another lies on it.
struct Builder {
    Stack& stack;
    Pool top;
    int n;  // pools, the top one included

    bool drop;  // a bottom pool that starts at or below 0, as calcium is 0 up to there, whatever follows

    __device__ Builder(Stack& s, bool bottom) : stack(s), top{0.0, 1.0, 1.0, 0}, n(0), drop(bottom) {}
    __device__ void push(Pool pool) {
        while (n > 0 && overlaps(top, pool, 0.0)) {
            pool = merged(top, pool);
            if (--n > 0) top = stack[n - 1];
        }
        if (drop && n == 0 && pool.v <= 0.0) return;
        if (n > 0) stack.put(n - 1, top);
        top = pool;
        ++n;
    }
    __device__ int finish() {
        if (n > 0) stack.put(n - 1, top);
        return n;
    }
};

// The fit at a level; from pool `last` to the end runs one pool that starts at `tail`.
// rss + 2 slope d + curvature d^2 as beta grows by d, while the pools stay as they are.
struct Fit {
    double b, lambda, rss, slope, curvature, tail;
    int last;  // segment * length + pool, -1 if there is none
};

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

// Samples of a segment less the first of the trace
struct Range {
    double sum, squares, smallest, largest;
};

struct Bounds {
    int low, high;  // the first pool of a segment, and the one after its last
};

enum Pass { SUM, BUILD, RAISE, WRITE, DONE };

// What a search knows between passes
struct Search {
    Pass pass;
    int used, pools, lowered, trials, accepted;  // the stack in use: the other takes the pools of a trial
    double beta, move, room, beyond;             // level, step tried; one known to be too far, the residual there
    double origin;
    Range all;
    Fit now;
};

// A trace of `segments` segments of `length` samples (the last ones shorter), side by side as columns
template <typename Sample>
struct Track {
    const Sample* y;
    double* pools;
    int* starts;
    index_t columns, column;  // in all, and the first of this trace
    int T, segments, length;
    double g, target, given;
    bool free, nonneg;
    Search* search;
    Bounds* bounds[2];
    Sums* sums;
    Range* ranges;

    __device__ index_t at(int t) const { return static_cast<index_t>(t % length) * columns + column + t / length; }
    __device__ double operator[](int t) const { return static_cast<double>(y[at(t)]); }
    __device__ Stack stack(int which, int segment) const {
        const index_t size = length * columns;
        return Stack(pools + 3 * which * size, starts + which * size, length, columns, column + segment);
    }
    __device__ Pool pool(int which, int place) const { return stack(which, place / length)[place % length]; }
    __device__ void put(int which, int place, const Pool& pool) const {
        stack(which, place / length).put(place % length, pool);
    }
    // The pools before and after a place, which is segment * length + pool; -1 if there is none
    __device__ int before(int which, int segment, int i) const {
        while (i == bounds[which][segment].low) {
            if (--segment < 0) return -1;
            i = bounds[which][segment].high;
        }
        return segment * length + i - 1;
    }
    __device__ int after(int which, int segment, int i) const {
        while (++i >= bounds[which][segment].high) {
            if (++segment == segments) return -1;
            i = bounds[which][segment].low - 1;
        }
        return segment * length + i;
    }
    __device__ double floor() const { return nonneg ? -search->origin : -INFINITY; }
};

template <typename Sample>
__device__ void sum_samples(const Track<Sample>& track, int segment) {
    Range range{0.0, 0.0, 0.0, 0.0};
    const int end = min((segment + 1) * track.length, track.T);
    const double origin = track[0];
    for (int t = segment * track.length; t < end; ++t) {
        const double z = track[t] - origin;
        range.sum += z;
        range.squares += z * z;
        range.smallest = fmin(range.smallest, z);
        range.largest = fmax(range.largest, z);
    }
    track.ranges[segment] = range;
}

// Pools of a segment at the level of the search: from its samples, or from its pools after beta has grown by `move`
// (>= 0: pools then merge and never split)
template <typename Sample>
__device__ void build(const Track<Sample>& track, int segment) {
    const Search& search = *track.search;
    const bool raise = search.pass == RAISE;
    const int which = raise ? 1 - search.used : search.used;
    Stack to = track.stack(which, segment);
    Builder builder(to, segment == 0);
    if (raise) {
        const Stack from = track.stack(search.used, segment);
        const Bounds bounds = track.bounds[search.used][segment];
        for (int i = bounds.low; i < bounds.high; ++i) {
            Pool pool = from[i];
            pool.v -= search.move * (1.0 - pool.gl) / (1.0 - track.g);
            builder.push(pool);
        }
    } else {
        const int end = min((segment + 1) * track.length, track.T);
        const double level = search.origin + search.beta;
        for (int t = segment * track.length; t < end; ++t) builder.push(Pool{track[t] - level, 1.0, track.g, t});
    }
    const int n = builder.finish();
    Sums sums{0.0, 0.0, 0.0};
    for (int i = 0; i < n; ++i) sums.add(to[i], 1.0 / (1.0 - track.g), 1.0);
    track.bounds[which][segment] = Bounds{0, n};
    track.sums[segment] = sums;
}

// Two neighbours as one, in the place of the right one; keeps the sums of their segments
template <typename Sample>
__device__ Pool merge_into(const Track<Sample>& track, int which, int left, int right, int segment) {
    const Pool a = track.pool(which, left), b = track.pool(which, right), both = merged(a, b);
    const double inverse = 1.0 / (1.0 - track.g);
    track.sums[left / track.length].add(a, inverse, -1.0);
    track.sums[segment].add(b, inverse, -1.0);
    track.sums[segment].add(both, inverse, 1.0);
    track.put(which, right, both);
    return both;
}

// Merge pools across the ends of segments, then leave out those at the bottom that start at or below 0
template <typename Sample>
__device__ void join(const Track<Sample>& track, int which) {
    Bounds* bounds = track.bounds[which];
    for (int segment = 1; segment < track.segments; ++segment) {
        if (bounds[segment].low == bounds[segment].high) continue;
        Pool pool = track.pool(which, segment * track.length + bounds[segment].low);
        for (bool settled = false; !settled;) {
            settled = true;
            const int place = segment * track.length + bounds[segment].low;
            for (int left = track.before(which, segment, bounds[segment].low);
                 left >= 0 && overlaps(track.pool(which, left), pool, 0.0);
                 left = track.before(which, segment, bounds[segment].low)) {
                pool = merge_into(track, which, left, place, segment);
                --bounds[left / track.length].high;
            }
            if (bounds[segment].low + 1 < bounds[segment].high && overlaps(pool, track.pool(which, place + 1), 0.0)) {
                pool = merge_into(track, which, place, place + 1, segment);
                ++bounds[segment].low;
                settled = false;
            }
        }
    }
    for (int segment = 0; segment < track.segments; ++segment) {
        for (; bounds[segment].low < bounds[segment].high; ++bounds[segment].low) {
            const Pool pool = track.pool(which, segment * track.length + bounds[segment].low);
            if (pool.v > 0.0) return;
            track.sums[segment].add(pool, 1.0 / (1.0 - track.g), -1.0);
        }
    }
}

// The baseline, and in `held` whether its bound holds it
__device__ __forceinline__ double bounded(double b, double floor, bool& held) {
    held = b < floor;
    return held ? floor : b;
}

// Baseline, lambda and residual of the pools at level beta, from sums over pools alone
template <typename Sample>
__device__ Fit measure(const Track<Sample>& track, int which, double beta) {
    const Search& search = *track.search;
    const double T = track.T, inverse = 1.0 / (1.0 - track.g), b = track.given - search.origin;
    const double z1 = search.all.sum - T * beta;
    const double z2 = search.all.squares - 2.0 * beta * search.all.sum + T * beta * beta;
    Sums all{0.0, 0.0, 0.0};
    for (int i = 0; i < track.segments; ++i) {
        all.calcium += track.sums[i].calcium;
        all.explained += track.sums[i].explained;
        all.change += track.sums[i].change;
    }
    Fit fit{b, 0.0, 0.0, 0.0, 0.0, 0.0, -1};
    double residual = z1 - all.calcium, rest = z2 - all.explained, along = 0.0;
    bool held = !track.free;
    if (track.free) fit.b = bounded(beta + residual / T, track.floor(), held);
    const int end = track.segments - 1, top = track.before(which, end, track.bounds[which][end].high);
    for (int round = 0; top >= 0 && round < TAIL_ROUNDS; ++round) {
        const double penalty = fmax((beta - fit.b) * inverse, 0.0);
        Sums body = all;
        Pool tail = track.pool(which, top);
        body.add(tail, inverse, -1.0);
        fit.last = top;
        for (int place = top; (place = track.before(which, place / track.length, place % track.length)) >= 0;) {
            const Pool left = track.pool(which, place);
            if (!overlaps(left, tail, penalty)) break;
            body.add(left, inverse, -1.0);
            tail = merged(left, tail);
            fit.last = place;
        }
        fit.tail = fmax((tail.v - penalty * tail.gl) / tail.w, 0.0);
        const double ones = (1.0 - tail.gl) * inverse;
        residual = z1 - body.calcium - fit.tail * ones;
        rest = z2 - body.explained - 2.0 * fit.tail * tail.v + fit.tail * fit.tail * tail.w;
        if (track.free) fit.b = bounded(beta + residual / T, track.floor(), held);
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
__device__ double low_percentile(const Track<Sample>& track, double low, double high) {
    const int stride = track.T < START_SAMPLES ? 1 : track.T / START_SAMPLES;
    const double wanted = START_PERCENTILE * ((track.T + stride - 1) / stride);
    for (int round = 0; round < START_ROUNDS; ++round) {
        const double middle = 0.5 * (low + high);
        int below = 0;
        for (int t = 0; t < track.T; t += stride) below += track[t] - track.search->origin < middle;
        if (below > wanted)
            high = middle;
        else
            low = middle;
    }
    return low;
}

// The samples as a whole, and a level to start from
template <typename Sample>
__device__ void begin(const Track<Sample>& track) {
    Search& search = *track.search;
    search.origin = track[0];
    search.all = track.ranges[0];
    for (int i = 1; i < track.segments; ++i) {
        search.all.sum += track.ranges[i].sum;
        search.all.squares += track.ranges[i].squares;
        search.all.smallest = fmin(search.all.smallest, track.ranges[i].smallest);
        search.all.largest = fmax(search.all.largest, track.ranges[i].largest);
    }
    search.beta = track.given - search.origin;
    if (track.free)
        search.beta = fmax(low_percentile(track, search.all.smallest, search.all.largest), track.floor());
    search.pass = BUILD;
}

template <typename Sample>
__device__ void accept(const Track<Sample>& track, int which, const Fit& fit) {
    track.search->now = fit;
    track.search->pools = 0;
    for (int i = 0; i < track.segments; ++i)
        track.search->pools += track.bounds[which][i].high - track.bounds[which][i].low;
}

// What a pass has found, and what the next one is to do
template <typename Sample>
__device__ void conclude(const Track<Sample>& track, int max_iter) {
    Search& search = *track.search;
    if (search.pass == SUM) return begin(track);
    if (search.pass == WRITE) {
        search.pass = DONE;
        return;
    }
    const bool raised = search.pass == RAISE;
    const int which = raised ? 1 - search.used : search.used;
    const double level = raised ? search.beta + search.move : search.beta, most = track.target * (1.0 + TOLERANCE);
    join(track, which);
    const Fit fit = measure(track, which, level);
    if (raised && fit.rss > most) {
        search.room = search.move;
        search.beyond = fit.rss;
    } else {
        accept(track, which, fit);
        search.used = which;
        search.beta = level;
    }
    if (raised && fit.rss <= most) {
        if (search.room < NONE) search.room -= search.move;
        ++search.accepted;
    }
    if (!raised && track.free && fit.rss > most && level > track.floor() && search.lowered < MOST_LOWERINGS) {
        const double reach = static_cast<double>((1 << search.lowered) - 1);  // ranges below the smallest sample
        const double further = search.all.smallest - reach * (search.all.largest - search.all.smallest);
        search.beta = fmax(fmin(level, further), track.floor());
        search.room = level - search.beta;
        search.beyond = fit.rss;
        ++search.lowered;
        return;
    }
    const bool near = search.now.rss >= track.target * (1.0 - TOLERANCE);
    if (near || search.pools == 0 || search.accepted >= max_iter || search.trials >= MOST_TRIALS) {
        search.pass = WRITE;
        return;
    }
    search.move = step_towards(track.target, search.now, search.room, search.beyond, search.all.largest - search.beta);
    search.pass = RAISE;
    ++search.trials;
}

// Calcium and spikes of a segment's pools, as far as the tail; of the first segment, also the zeros before all pools
template <typename Sample>
__device__ void write(const Track<Sample>& track, int segment, float* c, float* s) {
    const Fit& fit = track.search->now;
    const int which = track.search->used;
    if (segment == 0) {
        const int first = track.after(which, 0, track.bounds[which][0].low - 1);
        const int zeros = first >= 0 ? track.pool(which, first).start : track.T;
        for (int t = 0; t < zeros; ++t) c[track.at(t)] = s[track.at(t)] = 0.0f;
    }
    for (int i = track.bounds[which][segment].low; i < track.bounds[which][segment].high; ++i) {
        const int place = segment * track.length + i;
        if (place > fit.last) return;
        const Pool pool = track.pool(which, place);
        const int left = track.before(which, segment, i);
        const int right = place < fit.last ? track.after(which, segment, i) : -1;
        const int end = right >= 0 ? track.pool(which, right).start : track.T;
        double a = place < fit.last ? pool.v / pool.w : fit.tail, decayed = 0.0;
        if (left >= 0) {
            const Pool below = track.pool(which, left);
            decayed = below.v / below.w * below.gl;
        }
        for (int t = pool.start; t < end; ++t) {
            s[track.at(t)] = t == pool.start && t > 0 ? static_cast<float>(a - decayed) : 0.0f;
            c[track.at(t)] = static_cast<float>(a);
            a *= track.g;
        }
    }
}

// constrained_ar1<Sample>: calcium c and spikes s with least sum of s and residual sum of squares theta
//   launch   grid ceil(K * segments / BLOCK), block BLOCK
//   mapping  one thread per segment; passes over segments with a barrier between them, in which the first thread of a
//            trace joins its segments and plans the next pass. A block stays until its last search has ended
//   arrays   y [length, K, segments] Sample, g, theta [K] double, read; b [K] double, read, and written if free_b;
//            c, s [length, K, segments] float, lambda [K] double, written; pools [2, 3, length, K, segments] double and
//            starts [2, length, K, segments] int, scratch
//   needs    0 <= g < 1, T >= 1, y finite; segments a power of 2 up to BLOCK, (segments - 1) * length < T <= segments *
//            length < 2^31; T * K may exceed 2^31
//   numbers  all in double; fused multiply-adds and the cut into segments differ from the twin by rounding: the same
//            pools but for ties, c to 1e-6 of its largest value
//   traffic  about T * K * (2 sizeof(Sample) + 28) for the first pools, 8 for c and s, and 56 a pool and step
template <typename Sample>
__global__ void constrained_ar1(const Sample* __restrict__ y, index_t K, int T, int segments, int length,
                                const double* __restrict__ g, const double* __restrict__ theta, double* b, bool free_b,
                                bool b_nonneg, int max_iter, float* __restrict__ c, float* __restrict__ s,
                                double* __restrict__ lambda, double* pools, int* starts) {
    __shared__ Search searches[BLOCK];
    __shared__ Bounds bounds[2][BLOCK];
    __shared__ Sums sums[BLOCK];
    __shared__ Range ranges[BLOCK];
    const int segment = threadIdx.x % segments, first = threadIdx.x - segment;
    const index_t k = global_thread() / segments;
    const bool here = k < K, leads = here && segment == 0;
    const index_t own = here ? k : 0;
    const Track<Sample> track{y, pools, starts, K * segments, own * segments, T, segments, length, g[own], theta[own],
                              b[own], free_b, b_nonneg, &searches[first], {bounds[0] + first, bounds[1] + first},
                              sums + first, ranges + first};
    if (segment == 0)
        searches[first] = Search{here ? SUM : DONE, 0, 0, 0, 0, 0, 0.0, 0.0, NONE, NONE, 0.0, {}, {}};
    __syncthreads();
    for (bool going = true; going;) {
        const Pass pass = searches[first].pass;
        if (pass == SUM) sum_samples(track, segment);
        if (pass == BUILD || pass == RAISE) build(track, segment);
        if (pass == WRITE) write(track, segment, c, s);
        __syncthreads();
        if (leads && pass != DONE) conclude(track, max_iter);
        going = __syncthreads_or(leads && searches[first].pass != DONE);
    }
    if (leads) {
        b[k] = searches[first].now.b + searches[first].origin;
        lambda[k] = searches[first].now.lambda;
    }
}
