// faults.cu - what kernels get wrong, for tests that the emulator sees it; and what they get right.

__global__ void early_return(float* x, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    x[threadIdx.x] = 1.0f;
}

__global__ void different_barriers(float* x) {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
    x[threadIdx.x] = 1.0f;
}

__global__ void missing_barrier(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void blocks_race(float* x) {
    if (threadIdx.x == 0) x[0] = x[0] * 3.0f + blockIdx.x;
}

__global__ void outside_mask(int* x) { x[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }

__global__ void crash(float* x) { *reinterpret_cast<float*>(threadIdx.x == 7 ? 8 : (long long)x) = 1.0f; }

__global__ void divide(int* x, int by) { x[threadIdx.x] /= by; }

__global__ void claim(int n) { assert(n == 3); }

__global__ void past_the_end(float* x, int n) { x[n + threadIdx.x] = 1.0f; }

__global__ void reads_past_the_end(const float* x, float* y, int n) { y[threadIdx.x] = x[n + threadIdx.x]; }

__global__ void beside_fixed_tile(int* x, int n) {
    __shared__ int tile[32];
    tile[n] = 1;
    x[0] = tile[n];
}

__global__ void shared_as_found(unsigned* out) {
    __shared__ unsigned fixed[4];
    DYNAMIC_SHARED(unsigned, sized);
    out[0] = fixed[1];
    out[1] = sized[1];
    fixed[1] = sized[1] = 1;
}

__global__ void deep(int* out, int depth) {
    struct Recursion {
        static int down(int n) {
            volatile char room[1024];
            room[0] = char(n);
            return n ? down(n - 1) + room[0] - char(n) + 1 : 0;
        }
    };
    out[threadIdx.x] = Recursion::down(depth);
}

__global__ void scalars(long long a, int b, unsigned char c, float d, double e, bool f, double* out) {
    out[0] = a + 10.0 * b + 100.0 * c + 1000.0 * d + 10000.0 * e + (f ? 1e5 : 0.0);
}

__global__ void vectors(const float2* z, const float4* x, float* out) {
    out[0] = z[1].y;
    out[1] = x[1].w;
}

__global__ void subnormal(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] * 0.5f; }

// Every warp operation and vote, 64 threads.
__global__ void warp_operations(int* out) {
    const int t = threadIdx.x, lane = t % 32;
    int* o = out + t * 8;
    o[0] = __shfl_up_sync(~0u, t, 3);
    o[1] = __shfl_down_sync(~0u, t, 5, 16);
    o[2] = __shfl_xor_sync(~0u, t, 9);
    o[3] = __shfl_sync(~0u, t, 40);
    o[4] = int(__ballot_sync(~0u, lane % 3 == 0));
    o[5] = __any_sync(~0u, t == 40) * 2 + __all_sync(~0u, t < 32);
    if (lane < 4) o[6] = __shfl_xor_sync(0xfu, t, 1);
    __syncwarp();
    o[7] = __syncthreads_count(t < 11);
}

__global__ void count_up(int* counters, unsigned long long* big, float* sum) {
    atomicAdd(&counters[threadIdx.x % 3], 1);
    atomicMax(&counters[3], int(blockIdx.x * blockDim.x + threadIdx.x));
    atomicMin(&counters[4], int(threadIdx.x));
    atomicCAS(&counters[5], 0, 1);
    atomicAdd(big, 1ull << 33);
    atomicAdd(sum, 0.25f);
}

__global__ void indices(int* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
