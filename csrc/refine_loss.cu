// refine_loss on CUDA. Forward, four launches: minimum and maximum of image and prediction, one thread per
// pixel for the masked loss with a sum per block, the sum of those. Backward recomputes instead of storing:
// the two reductions, both gradients' gradients in one launch, then what sobel_gradient does, for each wanted.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "gradient_cuda.h"
#include "refine_loss.h"

BANET_GRADIENT_KERNELS(refine, f32, float)
BANET_GRADIENT_KERNELS(refine, f64, double)

extern "C" __global__ void refine_extremes(double* extremes, const double* parts, int blocks) {
  banet::extremes_body(extremes, parts, blocks);
}

namespace banet {

// parts: [N, blocks], the blocks' sums of masked losses.
template <typename R>
__device__ void refine_forward(double* parts, const Image<R>& image, const R* image_bounds,
                               const Image<R>& prediction, const R* bounds, const R* mask,
                               const RefineWeights<R>& weights) {
  R top;
  const Normal<R> image_normal = block_normal(image_bounds, top), normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x;
  double loss = 0;
  if (at < image.pixels()) {
    loss = mask[blockIdx.y * image.pixels() + at] *
           refine_pixel(polar_at(image, image_normal, at), polar_at(prediction, normal, at), weights);
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) parts[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = loss;
}

template <typename R>
__device__ void refine_sum(R* out, const double* parts, int64_t count) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += gradient_threads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = static_cast<R>(sum);
}

// image_gradients may be null. grad: a scalar on the device, so that nothing waits for it.
template <typename R>
__device__ void refine_pull(R* image_gradients, R* gradients, const R* grad, const Image<R>& image,
                            const R* image_bounds, const Image<R>& prediction, const R* bounds, const R* mask,
                            const RefineWeights<R>& weights) {
  R top;
  const Normal<R> image_normal = block_normal(image_bounds, top), normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x, n = blockIdx.y;
  if (at >= image.pixels()) return;
  const int64_t x = 2 * n * image.pixels() + at, y = x + image.pixels();
  const Polar<R> a = polar_at(image, image_normal, at), b = polar_at(prediction, normal, at);
  const R scale = *grad * mask[n * image.pixels() + at];
  const Polar<R> back = refine_prediction_backward(a, b, weights, scale);
  const Gradient<R> g = polar_backward(b, back.magnitude, back.x, back.y);
  gradients[x] = g.x, gradients[y] = g.y;
  if (!image_gradients) return;
  const Polar<R> other = refine_image_backward(a, b, weights, scale);
  const Gradient<R> h = polar_backward(a, other.magnitude, other.x, other.y);
  image_gradients[x] = h.x, image_gradients[y] = h.y;
}

}  // namespace banet

#define REFINE_KERNELS(suffix, R)                                                                                \
  extern "C" __global__ void refine_forward_##suffix(                                                            \
      double* parts, const R* image, const R* image_bounds, const R* prediction, const R* bounds, const R* mask, \
      int channels, int height, int width, double balance, double direction, double magnitude) {                 \
    banet::refine_forward(parts, banet::Image<R>{image, channels, height, width}, image_bounds,                  \
                          banet::Image<R>{prediction, 1, height, width}, bounds, mask,                           \
                          banet::RefineWeights<R>{R(balance), R(direction), R(magnitude)});                      \
  }                                                                                                              \
  extern "C" __global__ void refine_sum_##suffix(R* out, const double* parts, int64_t count) {                   \
    banet::refine_sum(out, parts, count);                                                                        \
  }                                                                                                              \
  extern "C" __global__ void refine_pull_##suffix(                                                               \
      R* image_gradients, R* gradients, const R* grad, const R* image, const R* image_bounds,                    \
      const R* prediction, const R* bounds, const R* mask, int channels, int height, int width, double balance,  \
      double direction, double magnitude) {                                                                      \
    banet::refine_pull(image_gradients, gradients, grad, banet::Image<R>{image, channels, height, width},        \
                       image_bounds, banet::Image<R>{prediction, 1, height, width}, bounds, mask,                \
                       banet::RefineWeights<R>{R(balance), R(direction), R(magnitude)});                         \
  }

REFINE_KERNELS(f32, float)
REFINE_KERNELS(f64, double)

#ifndef __CUDACC_RTC__
#include "gradient_launch.h"

namespace banet {

template <typename R>
Tensor bounds_of(const Launch& launch, const Tensor& image) {
  Tensor bounds = torch::stable::new_empty(image, {image.size(0) * range_blocks * 2});
  launch.grid(pick<R>(refine_range_f32, refine_range_f64), ranges(image), out<R>(bounds), in<R>(image),
              image.size(1), image.size(2), image.size(3));
  return bounds;
}

Tensor refine_loss_cuda(const Tensor& image, const Tensor& prediction, const Tensor& mask, double balance,
                        double direction, double magnitude) {
  check_refine_inputs("refine_loss", image, prediction, mask);
  Tensor result = torch::stable::new_empty(image, std::vector<int64_t>{});
  if (image.size(0) == 0) return torch::stable::zero_(result);
  const Launch launch(image);
  with_float_type(image, [&](auto type) {
    using R = decltype(type);
    const Tensor first = bounds_of<R>(launch, image), second = bounds_of<R>(launch, prediction);
    const dim3 blocks = pixel_blocks(image);
    const int64_t count = static_cast<int64_t>(blocks.x) * blocks.y;
    const Tensor parts = torch::stable::new_empty(image, {count}, ScalarType::Double);
    launch.grid(pick<R>(refine_forward_f32, refine_forward_f64), blocks, out<double>(parts), in<R>(image),
                in<R>(first), in<R>(prediction), in<R>(second), in<R>(mask), image.size(1), image.size(2),
                image.size(3), balance, direction, magnitude);
    launch.grid(pick<R>(refine_sum_f32, refine_sum_f64), dim3{1, 1}, out<R>(result), in<double>(parts), count);
  });
  return result;
}

std::tuple<Tensor, Tensor> refine_loss_backward_cuda(const Tensor& grad, const Tensor& image,
                                                     const Tensor& prediction, const Tensor& mask, double balance,
                                                     double direction, double magnitude, bool want_image) {
  check_refine_inputs("refine_loss_backward", image, prediction, mask);
  STD_TORCH_CHECK(grad.numel() == 1 && grad.scalar_type() == image.scalar_type(),
                  "refine_loss_backward: grad must be a scalar of the image's dtype");
  Tensor to_image = want_image ? torch::stable::new_empty(image, image.sizes())
                               : torch::stable::new_empty(image, std::vector<int64_t>{0});
  Tensor to_prediction = torch::stable::new_empty(prediction, prediction.sizes());
  if (image.size(0) == 0) return {to_image, to_prediction};
  const Launch launch(image);
  with_float_type(image, [&](auto type) {
    using R = decltype(type);
    const Tensor first = bounds_of<R>(launch, image), second = bounds_of<R>(launch, prediction);
    const std::vector<int64_t> shape{image.size(0), 2, image.size(2), image.size(3)};
    const Tensor gradients = torch::stable::new_empty(image, shape);
    const Tensor image_gradients = torch::stable::new_empty(image, want_image ? shape : std::vector<int64_t>{0});
    launch.grid(pick<R>(refine_pull_f32, refine_pull_f64), pixel_blocks(image),
                want_image ? out<R>(image_gradients) : nullptr, out<R>(gradients), in<R>(grad), in<R>(image),
                in<R>(first), in<R>(prediction), in<R>(second), in<R>(mask), image.size(1), image.size(2),
                image.size(3), balance, direction, magnitude);
    const auto adjoint = pick<R>(refine_adjoint_f32, refine_adjoint_f64);
    const auto finish = pick<R>(refine_finish_f32, refine_finish_f64);
    image_backward<R>(launch, to_prediction, gradients, prediction, second, adjoint, refine_extremes, finish);
    if (want_image) {
      image_backward<R>(launch, to_image, image_gradients, image, first, adjoint, refine_extremes, finish);
    }
  });
  return {to_image, to_prediction};
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) {
  m.impl("refine_loss", TORCH_BOX(&banet::refine_loss_cuda));
  m.impl("refine_loss_backward", TORCH_BOX(&banet::refine_loss_backward_cuda));
}
#endif
