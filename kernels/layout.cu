// layout.cu - frames in the dtype and the order of pixels of a file. Twin: gpucalcium/backend/cpu/layout.py
#include "common.cuh"

constexpr int TILE = 32;   // pixels a side of what is turned in shared memory
constexpr int LINES = 8;   // of it that a block of 32 x 8 threads takes at a time
constexpr float SMALLEST_HALF = 6.103515625e-05f, LARGEST_HALF = 65504.0f;  // of the normal numbers of float16

// Bits of the nearest float16, as the twin; done by hand, as CUDA's own type needs a header of the toolkit.
__device__ __forceinline__ unsigned half_bits(float v) {
    const unsigned bits = __float_as_uint(v), sign = bits >> 16 & 0x8000u, whole = bits & 0x7fffffffu;
    const float size = fabsf(v);
    if (size != size) return sign | 0x7e00u;
    if (size > LARGEST_HALF) return sign | 0x7bffu;
    if (size < SMALLEST_HALF) return sign | static_cast<unsigned>(rintf(size * 16777216.0f));
    return sign | (whole - (112u << 23) + 0xfffu + (whole >> 13 & 1u)) >> 13;
}

// What a file holds for one value: `Out`, or the bits of float16 where HALF.
template <typename Out, bool HALF> struct Stored {
    static __device__ __forceinline__ Out of(float v, float least, float most, Out fill) {
        const float near = rintf(v);
        if (near != near) return fill;
        return static_cast<Out>(near < least ? least : near > most ? most : near);
    }
};
template <bool HALF> struct Stored<float, HALF> {
    static __device__ __forceinline__ float of(float v, float, float, float) { return v; }
};
template <> struct Stored<unsigned short, true> {
    static __device__ __forceinline__ unsigned short of(float v, float, float, unsigned short) {
        return static_cast<unsigned short>(half_bits(v));
    }
};

// store<In, Out, HALF>: out = frames as the file holds them
//   launch   grid ceil(items / blockDim.x), no shared memory
//   mapping  one thread per value
//   arrays   frames [items] In, read; out [items] Out, written
//   needs    In converts to float without loss; least <= fill <= most
//   numbers  rounded half to even, clipped to least..most; NaN becomes fill: equal to the twin bit for bit
//   traffic  items * (sizeof(In) + sizeof(Out))
template <typename In, typename Out, bool HALF>
__global__ void store(const In* __restrict__ frames, index_t items, float least, float most, Out fill,
                      Out* __restrict__ out) {
    const index_t p = global_thread();
    if (p < items) out[p] = Stored<Out, HALF>::of(static_cast<float>(frames[p]), least, most, fill);
}

// turn<In, Out, HALF>: out[t, k, j, i] = frames[t, i, j, k] as the file holds it
//   launch   grid n * d1 * ceil(d0 / TILE) * ceil(d2 / TILE), block (TILE, LINES), static shared memory
//   mapping  a block turns one tile: reads and writes coalesce along k and along i; a column of the tile lies in
//            32 banks
//   arrays   frames [n, d0, d1, d2] In, read; out [n, d2, d1, d0] Out, written
//   needs    In converts to float without loss; least <= fill <= most; n * pixels may exceed 2^31
//   numbers  as store
//   traffic  n * pixels * (sizeof(In) + sizeof(Out))
template <typename In, typename Out, bool HALF>
__global__ void turn(const In* __restrict__ frames, index_t d0, index_t d1, index_t d2, float least, float most,
                     Out fill, Out* __restrict__ out) {
    __shared__ Out tile[TILE][TILE + (sizeof(Out) == 2 ? 2 : 1)];
    const index_t across = (d2 + TILE - 1) / TILE, down = (d0 + TILE - 1) / TILE;
    const index_t plane = blockIdx.x / (across * down), j = plane % d1, t = plane / d1;
    const index_t i0 = blockIdx.x / across % down * TILE, k0 = blockIdx.x % across * TILE;
    const index_t x = threadIdx.x;
    for (index_t y = threadIdx.y; y < TILE; y += LINES)
        if (i0 + y < d0 && k0 + x < d2)
            tile[y][x] = Stored<Out, HALF>::of(static_cast<float>(frames[((t * d0 + i0 + y) * d1 + j) * d2 + k0 + x]),
                                               least, most, fill);
    __syncthreads();
    for (index_t y = threadIdx.y; y < TILE; y += LINES)
        if (k0 + y < d2 && i0 + x < d0) out[((t * d2 + k0 + y) * d1 + j) * d0 + i0 + x] = tile[x][y];
}
