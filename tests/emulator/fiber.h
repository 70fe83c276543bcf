// fiber.h - run the blocks of a CUDA grid on the CPU. A block's threads are fibers on one OS thread: each
// runs until it waits (barrier, warp operation) or ends; then the scheduler picks the next. The order of
// threads and blocks follows from a seed, so a result that depends on it shows when the seed changes.
//
// What a kernel can do wrong ends the launch with a text, not the process: a barrier that some threads
// never reach, a shuffle outside its mask, a crash (invalid address, integer division by zero).
#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <link.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace gc {

constexpr unsigned WARP_SIZE = 32;
constexpr unsigned MAX_BLOCK = 1024;
constexpr unsigned char POISON = 0xCC;  // what shared memory and undefined lanes hold
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK = 512 << 10;
#else
constexpr size_t STACK = 128 << 10;
#endif
constexpr size_t PAGE = 4096;

enum State { READY, AT_BARRIER, AT_WARP, DONE };
enum Operation { SYNC_WARP, SHUFFLE, VOTE };

struct Fiber {
    dim3 tid;
    State state = DONE;
    char* stack = nullptr;  // held from the first time it runs until it is done
    void* fake_stack = nullptr;  // AddressSanitizer's
#if defined(__x86_64__)
    void* sp = nullptr;
#else
    ucontext_t context;
#endif
    const char* file = "";  // where it waits
    unsigned line = 0;
    int predicate = 0;  // of __syncthreads_count and its kin
    Operation operation = SYNC_WARP;
    unsigned mask = 0, source_lane = 0, votes = 0;
    uint64_t value = 0, received = 0;
};

// Everything but the __shared__ variables hangs on one pointer: those are the other thread-local data of
// this library, and are poisoned by writing over all of its thread-local storage.
struct Machine {
    Fiber fibers[MAX_BLOCK];
    unsigned order[MAX_BLOCK];
    char* free_stacks[MAX_BLOCK];
    unsigned stacks_free = 0;
    Fiber main;
    Fiber* current = nullptr;
    unsigned threads = 0;
    dim3 block_index, block_dim, grid_dim;
    void (*body)(void*) = nullptr;
    void* body_argument = nullptr;
    unsigned char* dynamic_shared = nullptr;
    size_t dynamic_bytes = 0;
    char* thread_local_data = nullptr;
    size_t thread_local_size = 0;
    int barrier_count = 0, barrier_and = 0, barrier_or = 0;
    uint64_t random = 0;
    unsigned seed = 0;
    bool failed = false;
    char* error = nullptr;
    size_t error_size = 0;
    sigjmp_buf on_crash;
    const void* main_stack = nullptr;  // the OS thread's, for AddressSanitizer
    size_t main_stack_size = 0;
};
inline thread_local Machine* machine = nullptr;

inline void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
inline void fail(const char* format, ...) {
    Machine& m = *machine;
    if (m.failed) return;
    m.failed = true;
    va_list list;
    va_start(list, format);
    const int n = vsnprintf(m.error, m.error_size, format, list);
    va_end(list);
    if (n >= 0 && size_t(n) < m.error_size)
        snprintf(m.error + n, m.error_size - n, " [block (%u, %u, %u), seed %u]", m.block_index.x,
                 m.block_index.y, m.block_index.z, m.seed);
}

// ---- switching between fibers --------------------------------------------------------------------------

#if defined(__x86_64__)
extern "C" __attribute__((visibility("hidden"))) void gc_switch(void** save, void* load);
asm(R"(
    .text
    .hidden gc_switch
    .type gc_switch, @function
gc_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size gc_switch, .-gc_switch
)");
#endif

inline void switch_fiber(Fiber& from, Fiber& to) {
    Machine& m = *machine;
#ifdef __SANITIZE_ADDRESS__
    const bool to_main = &to == &m.main;
    __sanitizer_start_switch_fiber(from.state == DONE && !to_main ? nullptr : &from.fake_stack,
                                   to_main ? m.main_stack : to.stack + PAGE,
                                   to_main ? m.main_stack_size : STACK);
#endif
#if defined(__x86_64__)
    gc_switch(&from.sp, to.sp);
#else
    swapcontext(&from.context, &to.context);
#endif
#ifdef __SANITIZE_ADDRESS__
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(from.fake_stack, &bottom, &size);
    if (&from != &m.main) { m.main_stack = bottom; m.main_stack_size = size; }
#else
    (void)m;
#endif
}

inline void to_scheduler(State state) {
    Machine& m = *machine;
    m.current->state = state;
    switch_fiber(*m.current, m.main);
}

[[noreturn]] inline void fiber_entry() {
    Machine& m = *machine;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &m.main_stack, &m.main_stack_size);
#endif
    m.body(m.body_argument);
    to_scheduler(DONE);
    __builtin_unreachable();
}

inline void prepare(Fiber& fiber) {
    Machine& m = *machine;
    if (m.stacks_free == 0) {  // a page that may not be touched lies below each stack
        void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) { perror("emulator: no memory for stacks"); abort(); }
        mprotect(memory, PAGE, PROT_NONE);
        m.free_stacks[m.stacks_free++] = static_cast<char*>(memory);
    }
    fiber.stack = m.free_stacks[--m.stacks_free];
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack + PAGE, STACK);
#endif
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(fiber.stack + PAGE + STACK);
    *--top = nullptr;  // keeps the stack aligned as the calling convention wants it
    *--top = reinterpret_cast<void*>(&fiber_entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    fiber.sp = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack + PAGE;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_entry, 0);
#endif
}

inline void give_back_stack(Machine& m, Fiber& fiber) {
    if (fiber.stack) m.free_stacks[m.stacks_free++] = fiber.stack;
    fiber.stack = nullptr;
}

// ---- waiting for one another ---------------------------------------------------------------------------

inline uint64_t random_bits(uint64_t& state) {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DULL;
}

// Seed 0: in order, 1: backwards, 2 and more: shuffled anew in every phase.
inline void arrange(Machine& m) {
    const unsigned n = m.threads;
    for (unsigned i = 0; i < n; ++i) m.order[i] = m.seed == 1 ? n - 1 - i : i;
    if (m.seed < 2) return;
    for (unsigned i = n - 1; i > 0; --i) {
        const unsigned j = random_bits(m.random) % (i + 1);
        const unsigned held = m.order[i];
        m.order[i] = m.order[j];
        m.order[j] = held;
    }
}

inline void deliver(Fiber* warp, unsigned group) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < WARP_SIZE; ++lane)
        if (group >> lane & 1) votes |= unsigned(warp[lane].predicate != 0) << lane;
    for (unsigned lane = 0; lane < WARP_SIZE; ++lane) {
        if (!(group >> lane & 1)) continue;
        Fiber& fiber = warp[lane];
        fiber.votes = votes;
        if (fiber.operation == SHUFFLE) {
            if (group >> fiber.source_lane & 1) fiber.received = warp[fiber.source_lane].value;
            else memset(&fiber.received, POISON + machine->seed, sizeof fiber.received);  // undefined in CUDA
        }
        fiber.state = READY;
    }
}

// Let lanes go on whose whole mask has arrived at the same kind of operation.
inline bool release_warps(Machine& m) {
    bool moved = false;
    for (unsigned first = 0; first < m.threads; first += WARP_SIZE) {
        Fiber* warp = m.fibers + first;
        const unsigned lanes = m.threads - first < WARP_SIZE ? m.threads - first : WARP_SIZE;
        unsigned gone = lanes < WARP_SIZE ? ~0u << lanes : 0;
        for (unsigned lane = 0; lane < lanes; ++lane) gone |= unsigned(warp[lane].state == DONE) << lane;
        for (unsigned lane = 0; lane < lanes; ++lane) {
            if (warp[lane].state != AT_WARP) continue;
            const unsigned group = warp[lane].mask & ~gone;
            bool complete = true;
            for (unsigned other = 0; other < lanes && complete; ++other)
                if (group >> other & 1)
                    complete = warp[other].state == AT_WARP && warp[other].mask == warp[lane].mask &&
                               warp[other].operation == warp[lane].operation;
            if (!complete) continue;
            deliver(warp, group);
            moved = true;
        }
    }
    return moved;
}

inline bool release_barrier(Machine& m) {
    m.barrier_count = 0;
    for (unsigned t = 0; t < m.threads; ++t) {
        if (m.fibers[t].state != AT_BARRIER || m.fibers[t].line != m.fibers[0].line) return false;
        m.barrier_count += m.fibers[t].predicate != 0;
    }
    m.barrier_and = m.barrier_count == int(m.threads);
    m.barrier_or = m.barrier_count > 0;
    for (unsigned t = 0; t < m.threads; ++t) m.fibers[t].state = READY;
    return true;
}

// Nobody can go on: say who waits where.
inline void report_deadlock(Machine& m) {
    unsigned done = 0, at_warp = 0, at_barrier = 0;
    const Fiber *here = nullptr, *there = nullptr;  // two that wait at different places
    for (unsigned t = 0; t < m.threads; ++t) {
        const Fiber& fiber = m.fibers[t];
        done += fiber.state == DONE;
        at_warp += fiber.state == AT_WARP;
        at_barrier += fiber.state == AT_BARRIER;
        if (fiber.state == DONE) continue;
        if (!here) here = &fiber;
        else if (!there && (fiber.line != here->line || fiber.state != here->state || fiber.mask != here->mask))
            there = &fiber;
    }
    char also[128] = "";
    if (there) snprintf(also, sizeof also, " and %s:%u", there->file, there->line);
    fail("divergent threads: of %u, %u wait at __syncthreads, %u at a warp operation, %u have returned; "
         "waiting at %s:%u%s", m.threads, at_barrier, at_warp, done, here->file, here->line, also);
}

inline void run_block(Machine& m) {
    for (unsigned t = 0; t < m.threads; ++t) {
        Fiber& fiber = m.fibers[t];
        fiber.tid = {t % m.block_dim.x, t / m.block_dim.x % m.block_dim.y, t / (m.block_dim.x * m.block_dim.y)};
        fiber.state = READY;
    }
    for (;;) {
        arrange(m);
        unsigned done = 0;
        for (unsigned i = 0; i < m.threads; ++i) {
            Fiber& fiber = m.fibers[m.order[i]];
            if (fiber.state == READY) {
                if (!fiber.stack) prepare(fiber);
                m.current = &fiber;
                switch_fiber(m.main, fiber);
                if (m.failed) return;
                if (fiber.state == DONE) give_back_stack(m, fiber);
            }
            done += fiber.state == DONE;
        }
        if (done == m.threads) return;
        if (release_warps(m) || release_barrier(m)) continue;
        return report_deadlock(m);
    }
}

// ---- a launch --------------------------------------------------------------------------------------------

// Find this thread's copy of the library's thread-local data: the __shared__ variables, and `machine`.
inline int find_thread_local(dl_phdr_info* info, size_t, void*) {
    char* const at = static_cast<char*>(info->dlpi_tls_data);
    char* const ours = reinterpret_cast<char*>(&machine);
    for (int i = 0; at && i < info->dlpi_phnum; ++i) {
        const size_t size = info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_TLS || ours < at || ours >= at + size) continue;
        machine->thread_local_data = at;
        machine->thread_local_size = size;
        return 1;
    }
    return 0;
}

inline void poison_shared(Machine& m) {
    memset(m.thread_local_data, POISON, m.thread_local_size);
    machine = &m;
    if (m.dynamic_bytes) memset(m.dynamic_shared, POISON, m.dynamic_bytes);
}

inline void crashed(int signal, siginfo_t* info, void*) {
    const char* what = signal == SIGFPE ? "integer division by zero" : "access to an invalid address";
    const dim3 t = machine->current->tid;
    fail("%s (%p) in thread (%u, %u, %u)", what, signal == SIGFPE ? nullptr : info->si_addr, t.x, t.y, t.z);
    siglongjmp(machine->on_crash, 1);
}

// Crashes become errors while this lives (the sanitizers make their own reports).
struct CrashGuard {
#ifndef __SANITIZE_ADDRESS__
    static constexpr int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3];
    stack_t stack_before;
    char stack[32 << 10];
    CrashGuard() {
        stack_t own = {};
        own.ss_sp = stack;
        own.ss_size = sizeof stack;
        sigaltstack(&own, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = crashed;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 3; ++i) sigaction(signals[i], &action, &before[i]);
    }
    ~CrashGuard() {
        for (int i = 0; i < 3; ++i) sigaction(signals[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
#endif
};

// As on the device with -ftz: subnormals count as zero (here doubles', too).
struct FlushSubnormals {
#if defined(__x86_64__)
    const unsigned before = _mm_getcsr();
    FlushSubnormals() { _mm_setcsr(before | 0x8040); }
    ~FlushSubnormals() { _mm_setcsr(before); }
#endif
};

// i-th block to run of n: in order, backwards, or with strides of a prime (seed 0, 1, 2 and more).
inline uint64_t block_at(uint64_t i, uint64_t n, unsigned seed) {
    if (seed == 0) return i;
    if (seed == 1) return n - 1 - i;
    constexpr uint64_t prime = 2147483647;
    return n % prime == 0 ? n - 1 - i : static_cast<uint64_t>((i % n) * (prime % n) + seed) % n;
}

inline void run_grid(Machine& m) {
    const uint64_t across = m.grid_dim.x, layer = across * m.grid_dim.y, n = layer * m.grid_dim.z;
    for (uint64_t i = 0; i < n && !m.failed; ++i) {
        const uint64_t b = block_at(i, n, m.seed);
        m.block_index = {unsigned(b % across), unsigned(b / across % m.grid_dim.y), unsigned(b / layer)};
        poison_shared(m);
        run_block(m);
    }
}

inline int launch(dim3 grid, dim3 block, size_t shared, unsigned seed, char* error, size_t error_size,
                  void (*body)(void*), void* argument) {
    if (!machine) {
        machine = new Machine;
        dl_iterate_phdr(find_thread_local, nullptr);
    }
    Machine& m = *machine;
    m.grid_dim = grid;
    m.block_dim = block;
    m.threads = block.x * block.y * block.z;
    m.seed = seed;
    m.random = 0x9E3779B97F4A7C15ULL * (seed + 1);
    m.body = body;
    m.body_argument = argument;
    m.failed = false;
    m.error = error;
    m.error_size = error_size;
    m.dynamic_bytes = shared;
    m.dynamic_shared = static_cast<unsigned char*>(aligned_alloc(16, (shared + 15) / 16 * 16));
    {
        const CrashGuard guard;
        const FlushSubnormals flush;
        if (sigsetjmp(m.on_crash, 1) == 0) run_grid(m);
    }
    for (unsigned t = 0; t < m.threads; ++t) give_back_stack(m, m.fibers[t]);  // of threads that failed
    free(m.dynamic_shared);
    return m.failed;
}

}  // namespace gc
