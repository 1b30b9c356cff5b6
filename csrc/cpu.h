// What the CPU operators share: tensors seen as planes, memory kept between frames, and the vectorised
// line functions (lines.cpp) that the operators' loops are made of.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "resize.h"

// One function, compiled for SSE2, AVX2+FMA and AVX-512 and chosen when the library loads: wheels stay
// portable and need no -march=native. GCC on x86-64 Linux only; elsewhere the plain version serves.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__linux__)
#define BANET_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define BANET_CLONES
#endif

namespace banet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// --- planes --------------------------------------------------------------------------------------------

// A [H, W] tensor of T with any strides, counted in samples. The step is 2 for half of a UV plane.
template <typename T>
struct Plane {
  const T* data;
  int height, width;
  int64_t stride, step;

  const T* row(int y) const { return data + y * stride; }
};

template <typename T>
Plane<T> plane_of(const Tensor& t) {
  return {static_cast<const T*>(t.const_data_ptr()), static_cast<int>(t.size(0)), static_cast<int>(t.size(1)),
          t.stride(0), t.stride(1)};
}

inline void check_plane(const char* name, const char* argument, const Tensor& t, ScalarType dtype) {
  STD_TORCH_CHECK(t.dim() == 2 && t.numel() > 0, name, ": ", argument, " must be [H, W], not empty");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": ", argument, " has the wrong dtype");
  STD_TORCH_CHECK(t.size(0) < (1 << 20) && t.size(1) < (1 << 20), name, ": ", argument, " is too large");
}

inline Tensor empty_plane(const Tensor& like, int height, int width) {
  return torch::stable::new_empty(like, {height, width});
}

// --- memory kept between frames ------------------------------------------------------------------------

// Freshly mapped pages cost more than the arithmetic done on them, so each thread keeps what it used:
// `Workspace` slots for the caller's whole-frame buffers, `scratch` for a worker's lines.
template <typename T, int slot>
T* scratch(size_t count) {
  static thread_local std::vector<T> memory;
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

// --- work split ------------------------------------------------------------------------------------------

// Rows go out in fixed blocks: results never depend on the number of threads.
template <typename F>
void parallel_blocks(int rows, int block, const F& work) {
  const int blocks = (rows + block - 1) / block;
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      work(static_cast<int>(i) * block, least(static_cast<int>(i + 1) * block, rows));
    }
  });
}

// --- resizing --------------------------------------------------------------------------------------------

// resize.h's taps of one axis as a table: every target sample has `count` taps from `first`, and the
// weights of all samples' k-th taps lie together, weight[k * target + i], so lines vectorise over i.
struct Axis {
  int source, target, count;
  std::vector<int> first;
  std::vector<float> weight;

  Axis(int source, int target);
};

// The same, remembered: a video asks for the same few tables with every frame.
std::shared_ptr<const Axis> axis(int source, int target);

// line[x] = sum over k of weight[k] * row_k[x] for x in [begin, end): the vertical half of a resize.
template <typename T>
void combine_rows(float* line, const Plane<T>& plane, const Axis& axis, int target_row, int begin, int end);

// out[i] = sum over k of the taps of i in `line`, for i in [begin, end): the horizontal half.
void combine_taps(float* out, const float* line, const Axis& axis, int begin, int end);

// --- box means -------------------------------------------------------------------------------------------

// Lines that are worked on together lie this many values more apart than they are long: at a multiple of
// 4 KiB, loads of one would wait for stores to the other (a matte's usual width, 512, makes 2 KiB).
constexpr int apart = 80;

void add_line(float* sums, const float* line, int count);

// Means over columns x - radius .. x + radius of those inside; `line` holds sums of `rows` rows.
void window_line(float* out, const float* line, int rows, int radius, int width);

// Calls use(y, means) for y in [begin, end) with the means over the square window around every pixel, for
// `channels` lines: row(y) points to the first of a row's, the others follow `pitch` apart.
template <typename Row, typename F>
void box_means(const Row& row, int channels, int pitch, int height, int width, int radius, int begin, int end,
               const F& use) {
  float* sums = scratch<float, 8>(2 * static_cast<size_t>(channels) * pitch);
  float* means = sums + static_cast<size_t>(channels) * pitch;
  for (int y = begin; y < end; ++y) {
    const int first = most(y - radius, 0), last = least(y + radius + 1, height);
    std::fill(sums, means, 0.0f);
    for (int i = first; i < last; ++i) add_line(sums, row(i), channels * pitch);
    for (int c = 0; c < channels; ++c) window_line(means + c * pitch, sums + c * pitch, last - first, radius, width);
    use(y, static_cast<const float*>(means));
  }
}

}  // namespace banet
