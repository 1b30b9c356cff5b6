// steady_alpha on CUDA: one thread per matte pixel, which reads 8 bytes and writes 4.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "steady_alpha.h"

extern "C" __global__ void steady_alpha_kernel(float* out, const float* alpha, const float* previous, int64_t pixels,
                                               float certain, float steady) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < pixels) out[i] = banet::steady_alpha(alpha[i], previous[i], certain, steady);
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

Tensor steady_alpha_cuda(const Tensor& alpha, const Tensor& previous, double certain, double steady) {
  check_alpha("steady_alpha", alpha);
  check_alpha("steady_alpha", previous);
  STD_TORCH_CHECK(alpha.size(0) == previous.size(0) && alpha.size(1) == previous.size(1),
                  "steady_alpha: previous must have alpha's shape");
  STD_TORCH_CHECK(alpha.is_contiguous() && previous.is_contiguous(), "steady_alpha: mattes must be contiguous");
  const Launch launch(alpha);
  Tensor result = torch::stable::new_empty(alpha, {alpha.size(0), alpha.size(1)});
  launch(steady_alpha_kernel, alpha.numel(), out<float>(result), in<float>(alpha), in<float>(previous),
         alpha.numel(), certain, steady);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) { m.impl("steady_alpha", TORCH_BOX(&banet::steady_alpha_cuda)); }
#endif
