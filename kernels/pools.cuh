// pools.cuh - pools of AR(1) calcium, and stacks of them: what oasis.cu and oasis_search.cu share.
#include "common.cuh"

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
