// common.cuh - what every kernel file starts from. Pasted into the file before it is compiled, so it
// includes nothing of the system: NVRTC takes it as it stands.

typedef long long index_t;  // frames times pixels pass 2^31 in minutes of movie

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int MAX_WARPS = 32;  // a block has at most 1024 threads

#ifndef INFINITY  // NVRTC knows neither
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif

// Shared memory whose size the launch gives (shared=bytes): DYNAMIC_SHARED(float, tile); then tile[...].
#ifndef DYNAMIC_SHARED  // the emulator of the tests has its own
#define DYNAMIC_SHARED(T, name)                                  \
    extern __shared__ __align__(16) unsigned char gc_dynamic[]; \
    T* const name = reinterpret_cast<T*>(gc_dynamic)
#endif

// Index of this thread in a one-dimensional grid.
__device__ __forceinline__ index_t global_thread() {
    return static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Threads of a one-dimensional grid: the step of a loop in which the grid strides over more items than threads.
__device__ __forceinline__ index_t grid_threads() { return static_cast<index_t>(gridDim.x) * blockDim.x; }

// Index of this thread in its block, of one to three dimensions.
__device__ __forceinline__ int block_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ __forceinline__ int block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

// Reductions in a fixed tree: the result depends on the values and the block size alone, bit for bit.
// Every thread of the warp (block) takes part and every thread gets the result. Blocks are a multiple of
// 32 threads. `combine(a, b)` must be commutative bit for bit, as +, min and max are.

struct Sum {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct Largest {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; }
};
struct Smallest {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return b < a ? b : a; }
};

template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
    for (int step = WARP / 2; step > 0; step /= 2)
        value = combine(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}

// `neutral`: combine(neutral, x) == x
template <typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T value, Combine combine, T neutral) {
    __shared__ T of_warp[MAX_WARPS];
    const int lane = block_thread() % WARP, warp = block_thread() / WARP;
    value = warp_reduce(value, combine);
    if (lane == 0) of_warp[warp] = value;
    __syncthreads();
    value = lane < block_threads() / WARP ? of_warp[lane] : neutral;
    value = warp_reduce(value, combine);
    __syncthreads();  // of_warp is free for the next reduction
    return value;
}

template <typename T> __device__ __forceinline__ T warp_sum(T value) { return warp_reduce(value, Sum()); }
template <typename T> __device__ __forceinline__ T block_sum(T value) {
    return block_reduce(value, Sum(), T(0));
}

// A value and where it stands; better() prefers the larger value, then the smaller index. NaN never wins.
template <typename T> struct Peak {
    T value;
    index_t index;
};

template <typename T> __device__ __forceinline__ Peak<T> better(Peak<T> a, Peak<T> b) {
    const bool b_wins = b.value > a.value || (b.value == a.value && b.index < a.index);
    return b_wins || a.value != a.value ? b : a;
}

template <typename T> __device__ __forceinline__ Peak<T> warp_peak(Peak<T> peak) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        const Peak<T> other = {__shfl_xor_sync(ALL_LANES, peak.value, step),
                               __shfl_xor_sync(ALL_LANES, peak.index, step)};
        peak = better(peak, other);
    }
    return peak;
}

// Largest value of a block and its index; start threads without a value from {-INFINITY, a large index}.
template <typename T> __device__ __forceinline__ Peak<T> block_peak(Peak<T> peak) {
    __shared__ T values[MAX_WARPS];
    __shared__ index_t indices[MAX_WARPS];
    const int lane = block_thread() % WARP, warp = block_thread() / WARP;
    peak = warp_peak(peak);
    if (lane == 0) {
        values[warp] = peak.value;
        indices[warp] = peak.index;
    }
    __syncthreads();
    const int last = block_threads() / WARP - 1;
    const int from = lane < last ? lane : last;
    peak = warp_peak(Peak<T>{values[from], indices[from]});
    __syncthreads();  // values and indices are free for the next search
    return peak;
}
