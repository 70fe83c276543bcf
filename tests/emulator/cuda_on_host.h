// cuda_on_host.h - the part of CUDA C++ that kernels use, as C++ on the fibers of fiber.h.
// Add here what a kernel needs and this lacks; NVRTC's own meaning is the measure.
#pragma once
#include "fiber.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__
#define __shared__ static thread_local
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(T, name) T* const name = reinterpret_cast<T*>(gc::machine->dynamic_shared)

#define threadIdx (gc::machine->current->tid)
#define blockIdx (gc::machine->block_index)
#define blockDim (gc::machine->block_dim)
#define gridDim (gc::machine->grid_dim)
constexpr int warpSize = 32;

#undef assert
#define assert(claim)                                                                                     \
    do {                                                                                                  \
        if (!(claim)) gc::give_up("assertion failed at %s:%u: %s", __FILE__, unsigned(__LINE__), #claim); \
    } while (0)

// ---- vector types ----------------------------------------------------------------------------------------

#define GC_VECTORS(T, NAME, A2, A4)                                                                      \
    struct alignas(A2) NAME##2 { T x, y; };                                                              \
    struct NAME##3 { T x, y, z; };                                                                       \
    struct alignas(A4) NAME##4 { T x, y, z, w; };                                                        \
    inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                                           \
    inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                                   \
    inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
GC_VECTORS(char, char, 2, 4)
GC_VECTORS(unsigned char, uchar, 2, 4)
GC_VECTORS(short, short, 4, 8)
GC_VECTORS(unsigned short, ushort, 4, 8)
GC_VECTORS(int, int, 8, 16)
GC_VECTORS(unsigned, uint, 8, 16)
GC_VECTORS(long long, longlong, 16, 16)
GC_VECTORS(unsigned long long, ulonglong, 16, 16)
GC_VECTORS(float, float, 8, 16)
GC_VECTORS(double, double, 16, 16)

// ---- threads meeting ---------------------------------------------------------------------------------------

namespace gc {

struct Here {  // the line of the kernel that calls
    const char* file;
    unsigned line;
    static Here now(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) { return {file, line}; }
};

template <class... A> [[noreturn]] inline void give_up(const char* format, A... arguments) {
    fail(format, arguments...);
    to_scheduler(DONE);
    __builtin_unreachable();
}

inline unsigned thread_index() {
    const Machine& m = *machine;
    return unsigned(m.current - m.fibers);
}

inline Fiber& meet_block(Here here, int predicate = 0) {
    Fiber& me = *machine->current;
    me.file = here.file;
    me.line = here.line;
    me.predicate = predicate;
    to_scheduler(AT_BARRIER);
    return me;
}

inline Fiber& meet_warp(Here here, unsigned mask, Operation operation) {
    Fiber& me = *machine->current;
    if (!(mask >> thread_index() % WARP_SIZE & 1))
        give_up("%s:%u: a thread calls a warp operation whose mask %08x leaves it out", here.file, here.line, mask);
    me.file = here.file;
    me.line = here.line;
    me.mask = mask;
    me.operation = operation;
    to_scheduler(AT_WARP);
    return me;
}

template <class T> T shuffle(Here here, unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Fiber& me = *machine->current;
    memcpy(&me.value, &value, sizeof value);
    me.source_lane = source;
    T received;
    memcpy(&received, &meet_warp(here, mask, SHUFFLE).received, sizeof received);
    return received;
}

inline unsigned vote(Here here, unsigned mask, int predicate) {
    machine->current->predicate = predicate;
    return meet_warp(here, mask, VOTE).votes;
}

inline unsigned lane() { return thread_index() % WARP_SIZE; }

}  // namespace gc

#define GC_HERE gc::Here here = gc::Here::now(__builtin_FILE(), __builtin_LINE())

inline void __syncthreads(GC_HERE) { gc::meet_block(here); }
inline int __syncthreads_count(int p, GC_HERE) { gc::meet_block(here, p); return gc::machine->barrier_count; }
inline int __syncthreads_and(int p, GC_HERE) { gc::meet_block(here, p); return gc::machine->barrier_and; }
inline int __syncthreads_or(int p, GC_HERE) { gc::meet_block(here, p); return gc::machine->barrier_or; }
inline void __syncwarp(unsigned mask = ~0u, GC_HERE) { gc::meet_warp(here, mask, gc::SYNC_WARP); }
inline unsigned __ballot_sync(unsigned mask, int p, GC_HERE) { return gc::vote(here, mask, p); }
inline int __any_sync(unsigned mask, int p, GC_HERE) { return gc::vote(here, mask, p) != 0; }
inline int __all_sync(unsigned mask, int p, GC_HERE) { return gc::vote(here, mask, !p) == 0; }

template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, GC_HERE) {
    const unsigned lane = gc::lane();
    return gc::shuffle(here, mask, v, (lane & ~(width - 1u)) | (source & (width - 1u)));
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned step, int width = 32, GC_HERE) {
    const unsigned lane = gc::lane();
    return gc::shuffle(here, mask, v, (lane & (width - 1u)) < step ? lane : lane - step);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned step, int width = 32, GC_HERE) {
    const unsigned lane = gc::lane();
    return gc::shuffle(here, mask, v, (lane & (width - 1u)) + step < unsigned(width) ? lane + step : lane);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, GC_HERE) {
    const unsigned lane = gc::lane(), source = lane ^ unsigned(bits);
    return gc::shuffle(here, mask, v, source >= (lane & ~(width - 1u)) + width ? lane : source);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { gc::give_up("__trap() was called"); }

// ---- atomics: threads of a launch run in turn ------------------------------------------------------------

#define GC_ATOMIC(name, T, result) \
    inline T name(T* p, T v) { const T old = *p; *p = result; return old; }
#define GC_ATOMICS(T)                              \
    GC_ATOMIC(atomicExch, T, v)                    \
    GC_ATOMIC(atomicMax, T, old < v ? v : old)     \
    GC_ATOMIC(atomicMin, T, v < old ? v : old)     \
    GC_ATOMIC(atomicAnd, T, old & v)               \
    GC_ATOMIC(atomicOr, T, old | v)                \
    GC_ATOMIC(atomicXor, T, old ^ v)               \
    inline T atomicCAS(T* p, T expected, T v) { const T old = *p; if (old == expected) *p = v; return old; }
GC_ATOMICS(int)
GC_ATOMICS(unsigned)
GC_ATOMICS(unsigned long long)
GC_ATOMIC(atomicMax, long long, old < v ? v : old)
GC_ATOMIC(atomicMin, long long, v < old ? v : old)
GC_ATOMIC(atomicAdd, int, old + v)
GC_ATOMIC(atomicAdd, unsigned, old + v)
GC_ATOMIC(atomicAdd, unsigned long long, old + v)
GC_ATOMIC(atomicAdd, float, old + v)
GC_ATOMIC(atomicAdd, double, old + v)
GC_ATOMIC(atomicSub, int, old - v)
GC_ATOMIC(atomicSub, unsigned, old - v)
GC_ATOMIC(atomicExch, float, v)

// ---- memory and bits -------------------------------------------------------------------------------------

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> void __stcg(T* p, T v) { *p = v; }

#define GC_REINTERPRET(name, From, To) inline To name(From v) { return __builtin_bit_cast(To, v); }
GC_REINTERPRET(__int_as_float, int, float)
GC_REINTERPRET(__uint_as_float, unsigned, float)
GC_REINTERPRET(__float_as_int, float, int)
GC_REINTERPRET(__float_as_uint, float, unsigned)
GC_REINTERPRET(__longlong_as_double, long long, double)
GC_REINTERPRET(__double_as_longlong, double, long long)

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }

// ---- arithmetic ------------------------------------------------------------------------------------------

#define GC_MIN_MAX(T)                                      \
    inline T min(T a, T b) { return b < a ? b : a; }       \
    inline T max(T a, T b) { return a < b ? b : a; }
GC_MIN_MAX(int)
GC_MIN_MAX(unsigned)
GC_MIN_MAX(long)
GC_MIN_MAX(unsigned long)
GC_MIN_MAX(long long)
GC_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }

inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline double rsqrt(double v) { return 1.0 / sqrt(v); }
inline float rcbrtf(float v) { return 1.0f / cbrtf(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float v) { return expf(v); }
inline float __logf(float v) { return logf(v); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __sinf(float v) { return sinf(v); }
inline float __cosf(float v) { return cosf(v); }
inline float __saturatef(float v) { return v > 0.0f ? fminf(v, 1.0f) : 0.0f; }
inline double sinpi(double v) { return sin(M_PI * fmod(v, 2.0)); }
inline double cospi(double v) { return cos(M_PI * fmod(v, 2.0)); }
inline float sinpif(float v) { return float(sinpi(v)); }
inline float cospif(float v) { return float(cospi(v)); }
inline void sincospi(double v, double* s, double* c) { *s = sinpi(v); *c = cospi(v); }
inline void sincospif(float v, float* s, float* c) { *s = sinpif(v); *c = cospif(v); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// Conversions to int saturate and take NaN to 0, as the device's do.
namespace gc {
inline int to_int(double v) {
    if (!(v == v)) return 0;
    return v >= 2147483647.0 ? 2147483647 : v <= -2147483648.0 ? int(-2147483647) - 1 : int(v);
}
}  // namespace gc
inline int __float2int_rn(float v) { return gc::to_int(rint(v)); }
inline int __float2int_rd(float v) { return gc::to_int(floor(v)); }
inline int __float2int_ru(float v) { return gc::to_int(ceil(v)); }
inline int __float2int_rz(float v) { return gc::to_int(trunc(v)); }
inline int __double2int_rn(double v) { return gc::to_int(rint(v)); }
inline int __double2int_rd(double v) { return gc::to_int(floor(v)); }
inline int __double2int_rz(double v) { return gc::to_int(trunc(v)); }
inline long long __double2ll_rn(double v) { return llrint(v); }
inline float __int2float_rn(int v) { return float(v); }
inline float __double2float_rn(double v) { return float(v); }
