// What sobel_gradient.cu and refine_loss.cu share on the device. Blocks are one-dimensional, `gradient_threads`
// wide; blockIdx.y is the image. Every reduction is a tree in shared memory with a fixed order: no atomics, so
// every run gives the same bits.
#pragma once
#include "sobel_gradient.h"

namespace banet {

constexpr int gradient_threads = 256;
constexpr int range_blocks = 64;  // partial minima and maxima per image

template <typename R>
struct Image {
  const R* data;  // [N, C, H, W]
  int channels, height, width;

  __device__ int64_t pixels() const { return static_cast<int64_t>(height) * width; }

  __device__ R luminance(int n, int64_t at) const {
    R sum = R(0);
    for (int c = 0; c < channels; ++c) {
      sum += channel_weight<R>(c, channels) * data[(static_cast<int64_t>(n) * channels + c) * pixels() + at];
    }
    return sum;
  }
};

// Sums `value` over the block; only thread 0's result counts.
template <typename T>
__device__ T block_sum(T value) {
  __shared__ T all[gradient_threads];
  __syncthreads();
  all[threadIdx.x] = value;
  for (int half = gradient_threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
  }
  __syncthreads();
  return all[0];
}

// bounds: [N, range_blocks, 2]; a NaN or infinity anywhere makes its pair NaN.
template <typename R>
__device__ void range_body(R* bounds, const Image<R>& image) {
  __shared__ R low[gradient_threads], high[gradient_threads];
  const int n = blockIdx.y, t = threadIdx.x;
  R least_of = image.luminance(n, 0), most_of = least_of, nothing = R(0);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * gradient_threads + t; i < image.pixels();
       i += static_cast<int64_t>(range_blocks) * gradient_threads) {
    const R value = image.luminance(n, i);
    least_of = least(least_of, value), most_of = most(most_of, value), nothing += value * R(0);
  }
  low[t] = least_of, high[t] = most_of;
  for (int half = gradient_threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) low[t] = least(low[t], low[t + half]), high[t] = most(high[t], high[t + half]);
  }
  nothing = block_sum(nothing);
  if (t == 0) {
    R* pair = bounds + 2 * (static_cast<int64_t>(n) * range_blocks + blockIdx.x);
    pair[0] = low[0] + nothing, pair[1] = high[0] + nothing;
  }
}

// The image's normalisation, from its partial bounds; all threads of the block get it.
template <typename R>
__device__ Normal<R> block_normal(const R* bounds, R& top) {
  __shared__ R low[range_blocks], high[range_blocks], nothing[range_blocks];
  const int t = threadIdx.x;
  __syncthreads();
  if (t < range_blocks) {
    const R* pair = bounds + 2 * (static_cast<int64_t>(blockIdx.y) * range_blocks + t);
    low[t] = pair[0], high[t] = pair[1], nothing[t] = pair[0] * R(0) + pair[1] * R(0);
  }
  for (int half = range_blocks / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) {
      low[t] = least(low[t], low[t + half]), high[t] = most(high[t], high[t + half]);
      nothing[t] += nothing[t + half];
    }
  }
  __syncthreads();
  const Normal<R> normal = normal_of(low[0] + nothing[0], high[0] + nothing[0]);
  top = normal.of(high[0]);
  return normal;
}

template <typename R>
__device__ Polar<R> polar_at(const Image<R>& image, const Normal<R>& normal, int64_t at) {
  const int x = static_cast<int>(at % image.width), y = static_cast<int>(at / image.width), n = blockIdx.y;
  const int left = most(x - 1, 0), right = least(x + 1, image.width - 1);
  const int64_t row = static_cast<int64_t>(y) * image.width;
  const int64_t above = static_cast<int64_t>(most(y - 1, 0)) * image.width;
  const int64_t below = static_cast<int64_t>(least(y + 1, image.height - 1)) * image.width;
  const auto value = [&](int64_t i) { return normal.of(image.luminance(n, i)); };
  return polar(sobel(value(above + left), value(above + x), value(above + right), value(row + left),
                     value(row + right), value(below + left), value(below + x), value(below + right)));
}

// d loss / d normalised luminance at a pixel: Sobel's adjoint there and at the repeated edge pixels it stands
// for. gradients: [N, 2, H, W].
template <typename R>
__device__ R normalised_gradient(const R* gradients, const Image<R>& image, int64_t at) {
  const int x = static_cast<int>(at % image.width), y = static_cast<int>(at / image.width);
  const R* gx = gradients + 2 * static_cast<int64_t>(blockIdx.y) * image.pixels();
  const R* gy = gx + image.pixels();
  const auto read = [&](const R* plane, int row, int column) {
    const bool inside = row >= 0 && row < image.height && column >= 0 && column < image.width;
    return inside ? plane[static_cast<int64_t>(row) * image.width + column] : R(0);
  };
  R sum = R(0);
  for (int r = y == 0 ? -1 : y; r <= (y == image.height - 1 ? image.height : y); ++r) {
    for (int c = x == 0 ? -1 : x; c <= (x == image.width - 1 ? image.width : x); ++c) {
      sum += sobel_backward(read(gx, r - 1, c - 1), read(gx, r - 1, c + 1), read(gx, r, c - 1), read(gx, r, c + 1),
                            read(gx, r + 1, c - 1), read(gx, r + 1, c + 1), read(gy, r - 1, c - 1),
                            read(gy, r - 1, c), read(gy, r - 1, c + 1), read(gy, r + 1, c - 1), read(gy, r + 1, c),
                            read(gy, r + 1, c + 1));
    }
  }
  return sum;
}

// back: [N, H, W], d loss / d normalised; parts: [N, blocks, 4] double, what the pixels at the minimum and the
// maximum get, and how many they are.
template <typename R>
__device__ void adjoint_body(R* back, double* parts, const R* gradients, const Image<R>& image, const R* bounds) {
  R top;
  const Normal<R> normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x;
  double low = 0, high = 0, lowest = 0, highest = 0;
  if (at < image.pixels()) {
    const R gradient = normalised_gradient(gradients, image, at);
    const R value = normal.of(image.luminance(blockIdx.y, at));
    back[blockIdx.y * image.pixels() + at] = gradient;
    low = gradient * (value - R(1)), high = -gradient * value;
    lowest = value == R(0), highest = value == top;
  }
  double* part = parts + 4 * (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x);
  low = block_sum(low), high = block_sum(high), lowest = block_sum(lowest), highest = block_sum(highest);
  if (threadIdx.x == 0) part[0] = low, part[1] = high, part[2] = lowest, part[3] = highest;
}

// extremes: [N, 2]: what each pixel at the minimum, and each at the maximum, gets. One block per image.
__device__ inline void extremes_body(double* extremes, const double* parts, int blocks) {
  double sums[4] = {};
  for (int b = threadIdx.x; b < blocks; b += gradient_threads) {
    for (int k = 0; k < 4; ++k) sums[k] += parts[4 * (static_cast<int64_t>(blockIdx.y) * blocks + b) + k];
  }
  for (int k = 0; k < 4; ++k) sums[k] = block_sum(sums[k]);
  if (threadIdx.x == 0) {
    extremes[2 * blockIdx.y] = sums[0] / sums[2], extremes[2 * blockIdx.y + 1] = sums[1] / sums[3];
  }
}

// out: [N, C, H, W].
template <typename R>
__device__ void finish_body(R* out, const R* back, const double* extremes, const Image<R>& image, const R* bounds) {
  R top;
  const Normal<R> normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x;
  if (at >= image.pixels()) return;
  const int n = blockIdx.y;
  const R value = normal.of(image.luminance(n, at));
  const R extreme = (value == R(0) ? static_cast<R>(extremes[2 * n]) : R(0)) +
                    (value == top ? static_cast<R>(extremes[2 * n + 1]) : R(0));
  const R gradient =
      normal.scale > R(0) ? (back[n * image.pixels() + at] + extreme) * normal.scale : R(0);
  for (int c = 0; c < image.channels; ++c) {
    out[(static_cast<int64_t>(n) * image.channels + c) * image.pixels() + at] =
        gradient * channel_weight<R>(c, image.channels);
  }
}

}  // namespace banet

// The kernels both files have, for one type; `name` makes them different in each.
#define BANET_GRADIENT_KERNELS(name, suffix, R)                                                                  \
  extern "C" __global__ void name##_range_##suffix(R* bounds, const R* image, int channels, int height,         \
                                                   int width) {                                                 \
    banet::range_body(bounds, banet::Image<R>{image, channels, height, width});                                 \
  }                                                                                                             \
  extern "C" __global__ void name##_adjoint_##suffix(R* back, double* parts, const R* gradients, const R* image, \
                                                     const R* bounds, int channels, int height, int width) {    \
    banet::adjoint_body(back, parts, gradients, banet::Image<R>{image, channels, height, width}, bounds);       \
  }                                                                                                             \
  extern "C" __global__ void name##_finish_##suffix(R* out, const R* back, const double* extremes,              \
                                                    const R* image, const R* bounds, int channels, int height,  \
                                                    int width) {                                                \
    banet::finish_body(out, back, extremes, banet::Image<R>{image, channels, height, width}, bounds);           \
  }
