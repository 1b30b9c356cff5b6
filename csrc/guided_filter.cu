// guided_filter on CUDA, in two launches: the weighted fits of windows that unsure pixels reach, and at these pixels
// their means. One thread per matte pixel and small windows: what neighbours read again lies in the cache.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "guided_filter.h"

#include "windows.h"

namespace banet {

// A pixel of a matte, and the least and the most within some reach of it.
struct Around {
  float own, lowest, highest;
};

BANET_HD Around look_around(const float* alpha, int64_t stride, int64_t step, Size size, int y, int x, int reach) {
  const float own = clean_alpha(alpha[y * stride + x * step]);
  Around around{own, own, own};
  const Range rows = window_range(y, reach, size.height), columns = window_range(x, reach, size.width);
  for (int v = rows.begin; v < rows.end; ++v) {
    for (int u = columns.begin; u < columns.end; ++u) {
      const float a = clean_alpha(alpha[v * stride + u * step]);
      around.lowest = least(around.lowest, a), around.highest = most(around.highest, a);
    }
  }
  return around;
}

}  // namespace banet

// fits: `fit_values` planes [height, width], written where they are read. image: [3, height, width] of any strides.
extern "C" __global__ void guided_fit_kernel(float* fits, int height, int width, const float* alpha, int64_t alpha_row,
                                             int64_t alpha_column, const float* image, int64_t channel, int64_t row,
                                             int64_t column, int radius, int reach, float unsure, float epsilon,
                                             float least_variance, float tiny) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  if (i >= pixels) return;
  const int y = static_cast<int>(i / width), x = static_cast<int>(i % width);
  const Around around = look_around(alpha, alpha_row, alpha_column, {height, width}, y, x, radius + reach);
  if (!is_unsure(around.lowest, around.highest, unsure)) return;  // and so is no pixel in the window
  const Range rows = window_range(y, radius, height), columns = window_range(x, radius, width);
  const float share = 1.0f / static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));

  float mean[3] = {0.0f, 0.0f, 0.0f}, mean_alpha = 0.0f;
  for (int v = rows.begin; v < rows.end; ++v) {
    for (int u = columns.begin; u < columns.end; ++u) {
      mean_alpha += clean_alpha(alpha[v * alpha_row + u * alpha_column]) * share;
      for (int c = 0; c < 3; ++c) mean[c] += clean_colour(image[c * channel + v * row + u * column]) * share;
    }
  }
  float spread[6] = {}, covariance[3] = {}, variance = 0.0f;
  for (int v = rows.begin; v < rows.end; ++v) {
    for (int u = columns.begin; u < columns.end; ++u) {
      const float a = clean_alpha(alpha[v * alpha_row + u * alpha_column]) - mean_alpha;
      float colour[3];
      for (int c = 0; c < 3; ++c) colour[c] = clean_colour(image[c * channel + v * row + u * column]) - mean[c];
      for (int c = 0, k = 0; c < 3; ++c) {
        for (int d = c; d < 3; ++d, ++k) spread[k] += colour[c] * colour[d] * share;
        covariance[c] += colour[c] * a * share;
      }
      variance += a * a * share;
    }
  }
  const WeightedFit<float> fit =
      fit_colours<float>(mean, mean_alpha, spread, covariance, variance, epsilon, least_variance, tiny);
  for (int k = 0; k < fit_values; ++k) fits[k * pixels + i] = fit.values[k];
}

extern "C" __global__ void guided_follow_kernel(float* out, int height, int width, const float* fits,
                                                const float* alpha, int64_t alpha_row, int64_t alpha_column,
                                                const float* image, int64_t channel, int64_t row, int64_t column,
                                                int radius, int reach, float unsure, float low, float high,
                                                float tiny) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  if (i >= pixels) return;
  const int y = static_cast<int>(i / width), x = static_cast<int>(i % width);
  const Around around = look_around(alpha, alpha_row, alpha_column, {height, width}, y, x, reach);
  if (!is_unsure(around.lowest, around.highest, unsure)) {
    out[i] = around.own;
    return;
  }
  float mean[fit_values];
  for (int k = 0; k < fit_values; ++k) mean[k] = mean_window(fits + k * pixels, {height, width}, y, x, radius);
  const float* colour = image + y * row + x * column;
  out[i] = follow_colours<float>(around.own, around.lowest, around.highest, mean, clean_colour(colour[0]),
                                 clean_colour(colour[channel]), clean_colour(colour[2 * channel]), low, high, tiny);
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

Tensor guided_filter_cuda(const Tensor& alpha, const Tensor& image, int64_t radius, double epsilon,
                          double least_variance, double low, double high, int64_t reach, double unsure, double tiny) {
  check_alpha("guided_filter", alpha);
  STD_TORCH_CHECK(image.dim() == 3 && image.size(0) == 3 && image.size(1) == alpha.size(0) &&
                      image.size(2) == alpha.size(1) && image.scalar_type() == ScalarType::Float,
                  "guided_filter: image must be [3, h, w] float32, alpha [h, w]");
  const Launch launch(alpha);
  const int height = rows_of(alpha), width = columns_of(alpha);
  const int64_t pixels = alpha.numel();
  Tensor fits = floats(alpha, fit_values * pixels);
  Tensor result = torch::stable::new_empty(alpha, {height, width});
  launch(guided_fit_kernel, pixels, out<float>(fits), height, width, in<float>(alpha), alpha.stride(0),
         alpha.stride(1), in<float>(image), image.stride(0), image.stride(1), image.stride(2), radius, reach,
         unsure, epsilon, least_variance, tiny);
  launch(guided_follow_kernel, pixels, out<float>(result), height, width, in<float>(fits), in<float>(alpha),
         alpha.stride(0), alpha.stride(1), in<float>(image), image.stride(0), image.stride(1), image.stride(2),
         radius, reach, unsure, low, high, tiny);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) { m.impl("guided_filter", TORCH_BOX(&banet::guided_filter_cuda)); }
#endif
