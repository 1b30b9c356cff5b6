// steady_alpha on the CPU.
#include "steady_alpha.h"

#include "cpu.h"

namespace banet {

BANET_CLONES void steady_line(float* __restrict out, const float* __restrict alpha,
                              const float* __restrict previous, float certain, float steady, int count) {
  for (int x = 0; x < count; ++x) out[x] = steady_alpha(alpha[x], previous[x], certain, steady);
}

static Tensor steady_alpha_cpu(const Tensor& alpha, const Tensor& previous, double certain, double steady) {
  check_plane("steady_alpha", "alpha", alpha, ScalarType::Float);
  check_plane("steady_alpha", "previous", previous, ScalarType::Float);
  const int height = static_cast<int>(alpha.size(0)), width = static_cast<int>(alpha.size(1));
  STD_TORCH_CHECK(previous.size(0) == height && previous.size(1) == width,
                  "steady_alpha: previous must have alpha's shape");
  STD_TORCH_CHECK(alpha.is_contiguous() && previous.is_contiguous(), "steady_alpha: mattes must be contiguous");
  const Tensor out = empty_plane(alpha, height, width);
  float* result = static_cast<float*>(out.mutable_data_ptr());
  const float* now = static_cast<const float*>(alpha.const_data_ptr());
  const float* before = static_cast<const float*>(previous.const_data_ptr());
  parallel_blocks(height, 64, [&](int begin, int end) {
    const int64_t at = static_cast<int64_t>(begin) * width;
    steady_line(result + at, now + at, before + at, static_cast<float>(certain), static_cast<float>(steady),
                (end - begin) * width);
  });
  return out;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CPU, m) {
  m.impl("steady_alpha", TORCH_BOX(&banet::steady_alpha_cpu));
}
