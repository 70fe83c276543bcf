// machine.h - what runs the threads of a block as fibers: their state and stacks, and the switch between them.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

}  // namespace gc
