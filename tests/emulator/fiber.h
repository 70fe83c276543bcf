// fiber.h - run the blocks of a CUDA grid on the CPU. A block's threads are fibers on one OS thread: each
// runs until it waits (barrier, warp operation) or ends; then the scheduler picks the next. The order of
// threads and blocks follows from a seed, so a result that depends on it shows when the seed changes.
//
// What a kernel can do wrong ends the launch with a text, not the process: a barrier that some threads
// never reach, a shuffle outside its mask, a crash (invalid address, integer division by zero).
#pragma once
#include "machine.h"

#include <link.h>
#include <signal.h>

namespace gc {

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
