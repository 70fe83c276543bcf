// launcher.h - call a kernel from a list of pointers to its arguments, and say what those must be.
// Pasted behind a kernel file, followed by GC_LAUNCHER(number, add_change<short>) for each instantiation.
#pragma once

namespace gc {

struct Parameter {  // as tests/emulator/compiler.py reads it
    char kind;  // b bool, i signed, u unsigned, f floating, s structure, p pointer
    char pointee;  // kind of what a pointer points to, v void
    char writes;  // whether the kernel may write through it
    unsigned size, pointee_size;
};

template <class T> constexpr bool is_one_of() { return false; }
template <class T, class F, class... R> constexpr bool is_one_of() {
    return __is_same(T, F) || is_one_of<T, R...>();
}
template <class T> constexpr char kind_of() {
    if (is_one_of<T, bool>()) return 'b';
    if (is_one_of<T, float, double>()) return 'f';
    if (is_one_of<T, char, signed char, short, int, long, long long>()) return 'i';
    if (is_one_of<T, unsigned char, unsigned short, unsigned, unsigned long, unsigned long long>()) return 'u';
    return 's';
}

template <class T> struct Plain { typedef T type; static constexpr bool constant = false; };
template <class T> struct Plain<const T> { typedef T type; static constexpr bool constant = true; };
template <class T> struct Size { static constexpr unsigned value = sizeof(T); };
template <> struct Size<void> { static constexpr unsigned value = 1; };

template <class T> struct Describe {
    static constexpr Parameter parameter = {kind_of<T>(), 0, 0, sizeof(T), 0};
};
template <class T> struct Describe<T*> {
    typedef typename Plain<T>::type Pointee;
    static constexpr Parameter parameter = {'p', __is_same(Pointee, void) ? 'v' : kind_of<Pointee>(),
                                            !Plain<T>::constant, sizeof(T*), Size<Pointee>::value};
};

template <int... I> struct Indices {};
template <class F> struct Kernel;
template <class... P> struct Kernel<void (*)(P...)> {
    static constexpr int count = sizeof...(P);
    static constexpr Parameter parameters[sizeof...(P) + 1] = {Describe<P>::parameter..., {}};
    struct Call {
        void (*function)(P...);
        void** values;
    };
    template <int... I> static void call(const Call& c, Indices<I...>) {
        c.function(*static_cast<typename Plain<P>::type*>(c.values[I])...);
    }
    static void body(void* c) { call(*static_cast<const Call*>(c), Indices<__integer_pack(count)...>()); }
};

}  // namespace gc

#define GC_EXPORT extern "C" __attribute__((visibility("default")))
#define GC_LAUNCHER(number, ...)                                                                              \
    GC_EXPORT int gc_count_##number() { return gc::Kernel<decltype(&__VA_ARGS__)>::count; }                   \
    GC_EXPORT const gc::Parameter* gc_parameters_##number() {                                                 \
        return gc::Kernel<decltype(&__VA_ARGS__)>::parameters;                                                \
    }                                                                                                         \
    GC_EXPORT int gc_launch_##number(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,         \
                                     unsigned bz, size_t shared, unsigned seed, void** values, char* error,   \
                                     size_t error_size) {                                                     \
        typedef gc::Kernel<decltype(&__VA_ARGS__)> K;                                                         \
        K::Call call = {&__VA_ARGS__, values};                                                                \
        return gc::launch({gx, gy, gz}, {bx, by, bz}, shared, seed, error, error_size, K::body, &call);       \
    }
