// cutouts.cu - masked squares of a movie around cells, normalised: what CINAC networks look at.
// Twin: gpucalcium/backend/cpu/cutouts.py
#include "common.cuh"

// gather<Pixel>: out[t, v, y, x] = (frames[t, corners[v] + (y, x)] - mean) / std where masks[v, y, x] is set, that pixel
//                lies in the frame and is finite; else 0
//   launch   grid ceil(n * views * side * side / blockDim.x), no shared memory
//   mapping  one thread per pixel of a patch; neighbours read neighbours of a row
//   arrays   frames [n, rows, columns] Pixel, corners [views, 2] int (row, column), masks [views, side, side] bool, read;
//            out [n, views, side, side] float, written
//   needs    side * side < 2^31; all patches together may have more pixels; corners may lie outside the frame
//   numbers  double, rounded to float once: equal to the twin bit for bit
//   traffic  n * (rows * columns * sizeof(Pixel) + 4 * views * side * side); overlaps and masks are read from L2
template <typename Pixel>
__global__ void gather(const Pixel* __restrict__ frames, index_t n, int rows, int columns,
                       const int* __restrict__ corners, const bool* __restrict__ masks, index_t views, int side,
                       double mean, double std, float* __restrict__ out) {
    const index_t at = global_thread(), size = static_cast<index_t>(side) * side;
    if (at >= n * views * size) return;  // no barrier follows
    const index_t patch = at / size, t = patch / views, view = patch - t * views;
    const int within = static_cast<int>(at - patch * size);
    const int y = corners[2 * view] + within / side, x = corners[2 * view + 1] + within % side;
    float v = 0.0f;
    if (masks[view * size + within] && 0 <= y && y < rows && 0 <= x && x < columns) {
        const double pixel = static_cast<double>(frames[(t * rows + y) * columns + x]);
        const double scaled = (pixel - mean) / std;
        if (fabs(scaled) < static_cast<double>(INFINITY)) v = static_cast<float>(scaled);
    }
    out[at] = v;
}
