// sobel_gradient on CUDA. Forward, two launches: minimum and maximum, then one thread per pixel reads its nine
// neighbours (from the cache; the image once from memory) and writes three values. Backward, five: the
// reduction, the gradients' gradients, Sobel's adjoint with partial sums for the extremes, their sum, the end.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "gradient_cuda.h"

BANET_GRADIENT_KERNELS(sobel, f32, float)
BANET_GRADIENT_KERNELS(sobel, f64, double)

extern "C" __global__ void sobel_extremes(double* extremes, const double* parts, int blocks) {
  banet::extremes_body(extremes, parts, blocks);
}

namespace banet {

template <typename R>
__device__ void sobel_forward(R* magnitude, R* direction, const Image<R>& image, const R* bounds) {
  R top;
  const Normal<R> normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x, n = blockIdx.y;
  if (at >= image.pixels()) return;
  const Polar<R> p = polar_at(image, normal, at);
  magnitude[n * image.pixels() + at] = p.magnitude;
  direction[2 * n * image.pixels() + at] = p.x;
  direction[(2 * n + 1) * image.pixels() + at] = p.y;
}

template <typename R>
__device__ void sobel_pull(R* gradients, const R* magnitude, const R* direction, const Image<R>& image,
                           const R* bounds) {
  R top;
  const Normal<R> normal = block_normal(bounds, top);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * gradient_threads + threadIdx.x, n = blockIdx.y;
  if (at >= image.pixels()) return;
  const int64_t x = 2 * n * image.pixels() + at, y = x + image.pixels();
  const Gradient<R> g = polar_backward(polar_at(image, normal, at), magnitude[n * image.pixels() + at],
                                       direction[x], direction[y]);
  gradients[x] = g.x, gradients[y] = g.y;
}

}  // namespace banet

#define SOBEL_KERNELS(suffix, R)                                                                                 \
  extern "C" __global__ void sobel_forward_##suffix(R* magnitude, R* direction, const R* image, const R* bounds, \
                                                    int channels, int height, int width) {                      \
    banet::sobel_forward(magnitude, direction, banet::Image<R>{image, channels, height, width}, bounds);        \
  }                                                                                                             \
  extern "C" __global__ void sobel_pull_##suffix(R* gradients, const R* magnitude, const R* direction,          \
                                                 const R* image, const R* bounds, int channels, int height,     \
                                                 int width) {                                                   \
    banet::sobel_pull(gradients, magnitude, direction, banet::Image<R>{image, channels, height, width}, bounds); \
  }

SOBEL_KERNELS(f32, float)
SOBEL_KERNELS(f64, double)

#ifndef __CUDACC_RTC__
#include "gradient_launch.h"

namespace banet {

std::tuple<Tensor, Tensor> sobel_gradient_cuda(const Tensor& image) {
  check_image("sobel_gradient", "image", image);
  const int64_t n = image.size(0), height = image.size(2), width = image.size(3);
  Tensor magnitude = torch::stable::new_empty(image, {n, 1, height, width});
  Tensor direction = torch::stable::new_empty(image, {n, 2, height, width});
  if (n == 0) return {magnitude, direction};
  const Launch launch(image);
  with_float_type(image, [&](auto type) {
    using R = decltype(type);
    const Tensor bounds = torch::stable::new_empty(image, {n * range_blocks * 2});
    launch.grid(pick<R>(sobel_range_f32, sobel_range_f64), ranges(image), out<R>(bounds), in<R>(image),
                image.size(1), height, width);
    launch.grid(pick<R>(sobel_forward_f32, sobel_forward_f64), pixel_blocks(image), out<R>(magnitude),
                out<R>(direction), in<R>(image), in<R>(bounds), image.size(1), height, width);
  });
  return {magnitude, direction};
}

Tensor sobel_gradient_backward_cuda(const Tensor& magnitude, const Tensor& direction, const Tensor& image) {
  check_image("sobel_gradient_backward", "image", image);
  STD_TORCH_CHECK(magnitude.is_contiguous() && direction.is_contiguous() &&
                      magnitude.scalar_type() == image.scalar_type() &&
                      direction.scalar_type() == image.scalar_type() &&
                      magnitude.numel() * image.size(1) == image.numel() &&
                      direction.numel() == 2 * magnitude.numel(),
                  "sobel_gradient_backward: the gradients must be contiguous and agree with the image");
  Tensor result = torch::stable::new_empty(image, image.sizes());
  if (image.size(0) == 0) return result;
  const Launch launch(image);
  const int64_t height = image.size(2), width = image.size(3);
  with_float_type(image, [&](auto type) {
    using R = decltype(type);
    const Tensor bounds = torch::stable::new_empty(image, {image.size(0) * range_blocks * 2});
    const Tensor gradients = torch::stable::new_empty(image, {image.size(0), 2, height, width});
    launch.grid(pick<R>(sobel_range_f32, sobel_range_f64), ranges(image), out<R>(bounds), in<R>(image),
                image.size(1), height, width);
    launch.grid(pick<R>(sobel_pull_f32, sobel_pull_f64), pixel_blocks(image), out<R>(gradients), in<R>(magnitude),
                in<R>(direction), in<R>(image), in<R>(bounds), image.size(1), height, width);
    image_backward<R>(launch, result, gradients, image, bounds, pick<R>(sobel_adjoint_f32, sobel_adjoint_f64),
                      sobel_extremes, pick<R>(sobel_finish_f32, sobel_finish_f64));
  });
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) {
  m.impl("sobel_gradient", TORCH_BOX(&banet::sobel_gradient_cuda));
  m.impl("sobel_gradient_backward", TORCH_BOX(&banet::sobel_gradient_backward_cuda));
}
#endif
