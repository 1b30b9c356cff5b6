// Host side of what sobel_gradient.cu and refine_loss.cu share. Not seen by NVRTC.
#pragma once
#include <type_traits>

#include "gradient_checks.h"
#include "gradient_cuda.h"
#include "launch.h"

namespace banet {

static_assert(threads == gradient_threads, "the reductions' shared memory is this wide");

template <typename F>
void with_float_type(const Tensor& t, const F& use) {
  if (t.scalar_type() == ScalarType::Float) use(float{});
  else use(double{});
}

template <typename R, typename Single, typename Double>
auto pick(Single single, Double both) {
  if constexpr (std::is_same_v<R, float>) return single;
  else return both;
}

inline dim3 ranges(const Tensor& image) { return {range_blocks, static_cast<unsigned>(image.size(0))}; }

inline dim3 pixel_blocks(const Tensor& image) {
  return {blocks_for(image.size(2) * image.size(3)), static_cast<unsigned>(image.size(0))};
}

// From gradients of the Sobel responses [N, 2, H, W] to the image's.
template <typename R, typename Adjoint, typename Extremes, typename Finish>
void image_backward(const Launch& launch, const Tensor& result, const Tensor& gradients, const Tensor& image,
                    const Tensor& bounds, Adjoint adjoint, Extremes extremes_of, Finish finish) {
  const int64_t n = image.size(0), channels = image.size(1), height = image.size(2), width = image.size(3);
  const dim3 blocks = pixel_blocks(image);
  const Tensor back = torch::stable::new_empty(image, {n, height, width});
  const Tensor sums = torch::stable::new_empty(image, {n * (4 * blocks.x + 2)}, ScalarType::Double);
  double *parts = out<double>(sums), *extremes = parts + 4 * n * blocks.x;
  launch.grid(adjoint, blocks, out<R>(back), parts, in<R>(gradients), in<R>(image), in<R>(bounds), channels, height,
              width);
  launch.grid(extremes_of, dim3{1, static_cast<unsigned>(n)}, extremes, parts, blocks.x);
  launch.grid(finish, blocks, out<R>(result), in<R>(back), extremes, in<R>(image), in<R>(bounds), channels, height,
              width);
}

}  // namespace banet
