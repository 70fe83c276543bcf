// launch_examples.cu - for the tests of the launcher and of common.cuh
#include "common.cuh"

template <typename T, int FACTOR>
__global__ void scale(const T* __restrict__ x, index_t n, T* __restrict__ y) {
    const index_t i = global_thread();
    if (i < n) y[i] = T(x[i] * FACTOR);
}

__global__ void fill(float* x, int n, float value) {
    const index_t i = global_thread();
    if (i < n) x[i] = value;
}

// Reverse each block's piece by way of dynamic shared memory.
__global__ void reverse(const int* __restrict__ x, int* __restrict__ y) {
    DYNAMIC_SHARED(int, held);
    const index_t i = global_thread();
    held[threadIdx.x] = x[i];
    __syncthreads();
    y[i] = held[blockDim.x - 1 - threadIdx.x];
}

// Per block: sum, largest, smallest, twice over so that scratch memory is used again; all threads must agree.
template <typename T>
__global__ void reduce(const T* __restrict__ x, index_t n, T* __restrict__ out) {
    T sum = T(0), most = x[0], least = x[0];
    for (index_t i = block_thread(); i < n; i += block_threads()) {
        sum += x[i];
        most = Largest()(most, x[i]);
        least = Smallest()(least, x[i]);
    }
    sum = block_sum(sum);
    most = block_reduce(most, Largest(), x[0]);
    least = block_reduce(least, Smallest(), x[0]);
    T* mine = out + 3 * block_thread();
    mine[0] = sum;
    mine[1] = most;
    mine[2] = least;
}

template <typename T>
__global__ void find_peak(const T* __restrict__ x, index_t n, T* __restrict__ value, index_t* __restrict__ index) {
    Peak<T> peak = {T(-INFINITY), n};
    for (index_t i = block_thread(); i < n; i += block_threads()) peak = better(peak, Peak<T>{x[i], i});
    peak = block_peak(peak);
    value[block_thread()] = peak.value;
    index[block_thread()] = peak.index;
}

__global__ void constants(float* out) {
    out[0] = INFINITY;
    out[1] = -INFINITY;
    out[2] = NAN;
}
