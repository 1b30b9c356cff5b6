// masked_blur on CUDA, four launches per plane: weights at the small size, the Gaussian along rows, along
// columns with the division, and one thread per sample that enlarges. Full-size memory is read once (by the
// shrinking) and written once.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "masked_blur.h"

// weights: [2, h, w]: weighted colour, weight.
extern "C" __global__ void blur_small_kernel(float* weights, int height, int width, const void* plane,
                                             int64_t stride, int64_t step, int full_height, int full_width,
                                             bool wide, const float* alpha, int alpha_height, int alpha_width,
                                             float trace) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int row = static_cast<int>(i / width), column = static_cast<int>(i % width);
  const Size size{height, width};
  const float weight = blur_weight(
      resample(CleanFloats{alpha, alpha_width}, {alpha_height, alpha_width}, size, row, column), trace);
  weights[i] = weight * resample(Samples{plane, stride, step, wide}, {full_height, full_width}, size, row, column);
  weights[pixels + i] = weight;
}

// across: [2, h, w].
extern "C" __global__ void blur_rows_kernel(float* across, const float* weights, int height, int width,
                                            float sigma) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int column = static_cast<int>(i % width), radius = gaussian_radius(sigma);
  float colour = 0.0f, weight = 0.0f;
  for (int k = -radius; k <= radius; ++k) {
    const int64_t at = i - column + clamp(column + k, 0, width - 1);
    const float tap = gaussian_tap(k, sigma);
    colour += tap * weights[at], weight += tap * weights[pixels + at];
  }
  across[i] = colour, across[pixels + i] = weight;
}

// mean: [h, w].
extern "C" __global__ void blur_columns_kernel(float* mean, const float* across, int height, int width,
                                               float sigma) {
  using namespace banet;
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;
  const int row = static_cast<int>(i / width), radius = gaussian_radius(sigma);
  float colour = 0.0f, weight = 0.0f;
  for (int k = -radius; k <= radius; ++k) {
    const int64_t at = i + static_cast<int64_t>(clamp(row + k, 0, height - 1) - row) * width;
    const float tap = gaussian_tap(k, sigma);
    colour += tap * across[at], weight += tap * across[pixels + at];
  }
  mean[i] = colour / weight;
}

extern "C" __global__ void blur_full_kernel(void* out, int full_height, int full_width, const float* mean,
                                            int height, int width, bool wide, float peak) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(full_height) * full_width) return;
  const float value = resample(Floats{mean, width}, {height, width}, {full_height, full_width},
                               static_cast<int>(i / full_width), static_cast<int>(i % full_width));
  if (wide) static_cast<int16_t*>(out)[i] = static_cast<int16_t>(quantise(value, peak));
  else static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(quantise(value, peak));
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

Tensor masked_blur_cuda(const Tensor& plane, const Tensor& alpha, int64_t depth, int64_t height, int64_t width,
                        double sigma, double trace) {
  check_samples("masked_blur", "planes", plane, depth);
  check_alpha("masked_blur", alpha);
  STD_TORCH_CHECK(height > 0 && width > 0 && height <= plane.size(0) && width <= plane.size(1),
                  "masked_blur: the small size must be positive and not above the plane's");
  STD_TORCH_CHECK(sigma > 0 && sigma < 1000, "masked_blur: sigma must be positive and, at the small size, below 1000");
  const Launch launch(plane);
  const int64_t pixels = height * width;
  const bool wide = depth != 8;
  Tensor matte = torch::stable::contiguous(alpha);
  Tensor memory = floats(alpha, 5 * pixels);
  float *weights = out<float>(memory), *across = weights + 2 * pixels, *mean = across + 2 * pixels;
  launch(blur_small_kernel, pixels, weights, height, width, plane.const_data_ptr(), plane.stride(0),
         plane.stride(1), rows_of(plane), columns_of(plane), wide, in<float>(matte), rows_of(matte),
         columns_of(matte), trace);
  launch(blur_rows_kernel, pixels, across, weights, height, width, sigma);
  launch(blur_columns_kernel, pixels, mean, across, height, width, sigma);
  Tensor result = torch::stable::new_empty(plane, {plane.size(0), plane.size(1)});
  launch(blur_full_kernel, plane.numel(), result.mutable_data_ptr(), rows_of(plane), columns_of(plane), mean, height,
         width, wide, static_cast<float>((1 << depth) - 1));
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) { m.impl("masked_blur", TORCH_BOX(&banet::masked_blur_cuda)); }
#endif
