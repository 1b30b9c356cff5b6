// upsample_alpha on CUDA, in four launches: alpha and luma at the matte's size, the guided fit, its mean,
// and one thread per luma sample that reads 1 sample and 2 x 4 fits and writes 4 bytes.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "upsample_alpha.h"

// clean, small: [h, w]; `luma` resized. One thread per matte pixel.
extern "C" __global__ void alpha_small_kernel(float* clean, float* small, int height, int width, const float* alpha,
                                              int64_t alpha_stride, int64_t alpha_step, const void* luma,
                                              int64_t stride, int64_t step, int luma_height, int luma_width,
                                              bool wide) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(height) * width) return;
  shrink_pixel(clean, small, {height, width}, alpha, alpha_stride, alpha_step, Samples{luma, stride, step, wide},
               {luma_height, luma_width}, i);
}

extern "C" __global__ void alpha_fit_kernel(float* fits, const float* clean, const float* small, float peak,
                                            int height, int width, bool guided, int radius, float epsilon) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(height) * width) return;
  fit_pixel(fits, clean, small, peak, {height, width}, guided, radius, epsilon, i);
}

extern "C" __global__ void alpha_mean_kernel(float* means, const float* fits, int height, int width, int radius) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(height) * width) return;
  mean_pixel(means, fits, {height, width}, radius, i);
}

extern "C" __global__ void alpha_full_kernel(float* out, int height, int width, const float* means, int small_height,
                                             int small_width, const void* luma, int64_t stride, int64_t step,
                                             bool wide, float peak, float floor, float ceiling) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(height) * width) return;
  const int row = static_cast<int>(i / width), column = static_cast<int>(i % width);
  const Size small{small_height, small_width}, full{height, width};
  const float* offsets = means + static_cast<int64_t>(small_height) * small_width;
  out[i] = apply_fit(resample(Floats{means, small_width}, small, full, row, column),
                     resample(Floats{offsets, small_width}, small, full, row, column),
                     Samples{luma, stride, step, wide}(row, column) / peak, floor, ceiling);
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

Tensor upsample_alpha_cuda(const Tensor& alpha, const Tensor& luma, int64_t depth, bool guided, int64_t radius,
                           double epsilon, double floor, double ceiling) {
  check_alpha("upsample_alpha", alpha);
  check_samples("upsample_alpha", "luma", luma, depth);
  const Launch launch(luma);
  const int h = rows_of(alpha), w = columns_of(alpha), height = rows_of(luma), width = columns_of(luma);
  const int64_t pixels = alpha.numel();
  const float peak = static_cast<float>((1 << depth) - 1);
  const bool wide = depth != 8;
  Tensor memory = floats(alpha, 6 * pixels);
  float *clean = out<float>(memory), *small = clean + pixels, *fits = small + pixels, *means = fits + 2 * pixels;
  launch(alpha_small_kernel, pixels, clean, small, h, w, in<float>(alpha), alpha.stride(0), alpha.stride(1),
         luma.const_data_ptr(), luma.stride(0), luma.stride(1), height, width, wide);
  launch(alpha_fit_kernel, pixels, fits, clean, small, peak, h, w, guided, radius, epsilon);
  if (guided) launch(alpha_mean_kernel, pixels, means, fits, h, w, radius);
  Tensor result = torch::stable::new_empty(alpha, {height, width});
  launch(alpha_full_kernel, result.numel(), out<float>(result), height, width, guided ? means : fits, h, w,
         luma.const_data_ptr(), luma.stride(0), luma.stride(1), wide, peak, floor, ceiling);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) {
  m.impl("upsample_alpha", TORCH_BOX(&banet::upsample_alpha_cuda));
}
#endif
