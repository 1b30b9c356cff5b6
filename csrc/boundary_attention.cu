// boundary_attention on CUDA. Forward: one thread per output pixel copies the image's three channels and
// adds the fourth; it reads each image value once and four logits from the cache. Backward: one thread per
// logit gathers from its own output pixels, so sums have a fixed order.
//
// Compiles with nvcc 13 and NVRTC; it has run on no GPU yet.
#include "boundary_attention.h"

namespace banet {

// dtypes: 0 float, 1 half, 2 bfloat16, 3 double.
template <typename R>
__device__ __forceinline__ R load(const void* data, int64_t at, int kind) {
  if (kind == 0) return static_cast<R>(static_cast<const float*>(data)[at]);
  if (kind == 1) return static_cast<R>(to_float(static_cast<const Half*>(data)[at]));
  if (kind == 2) return static_cast<R>(to_float(static_cast<const BFloat16*>(data)[at]));
  return static_cast<R>(static_cast<const double*>(data)[at]);
}

template <typename R>
__device__ __forceinline__ void store(void* data, int64_t at, int kind, R value) {
  if (kind == 0) static_cast<float*>(data)[at] = static_cast<float>(value);
  if (kind == 1) static_cast<Half*>(data)[at] = to_half(static_cast<float>(value));
  if (kind == 2) static_cast<BFloat16*>(data)[at] = to_bfloat16(static_cast<float>(value));
  if (kind == 3) static_cast<double*>(data)[at] = static_cast<double>(value);
}

template <typename R>
__device__ __forceinline__ R attention_at(const void* logits, int kind, int64_t base, int64_t y_stride,
                                          int64_t x_stride, const Between<R>& row, const Between<R>& column,
                                          R temperature) {
  const int64_t upper = base + row.first * y_stride, lower = base + row.second * y_stride;
  const int64_t left = column.first * x_stride, right = column.second * x_stride;
  const R a = lerp(load<R>(logits, upper + left, kind), load<R>(logits, lower + left, kind), row.fraction);
  const R b = lerp(load<R>(logits, upper + right, kind), load<R>(logits, lower + right, kind), row.fraction);
  return soft_sigmoid(lerp(a, b, column.fraction), temperature);
}

template <typename R>
__device__ __forceinline__ R logit_gradient(const void* grad, int64_t grad_base, int64_t grad_y, int64_t grad_x,
                                            const void* value, int64_t value_base, int64_t value_y, int64_t value_x,
                                            int kind, int row, int column, int height, int width, int small_height,
                                            int small_width, R temperature) {
  const Reach rows = reach(row, small_height, height), columns = reach(column, small_width, width);
  R sum = R(0);
  for (int y = rows.begin; y < rows.end; ++y) {
    const R weight = share(between<R>(y, small_height, height), row);
    if (weight == R(0)) continue;
    R line = R(0);
    for (int x = columns.begin; x < columns.end; ++x) {
      const R own = share(between<R>(x, small_width, width), column);
      if (own == R(0)) continue;
      line += own * load<R>(grad, grad_base + y * grad_y + x * grad_x, kind) *
              soft_sigmoid_slope(load<R>(value, value_base + y * value_y + x * value_x, kind), temperature);
    }
    sum += weight * line;
  }
  return sum;
}

}  // namespace banet

extern "C" __global__ void boundary_attention_kernel(
    void* out, int64_t out_n, int64_t out_c, int64_t out_y, int64_t out_x, const void* image, int64_t n_stride,
    int64_t c_stride, int64_t y_stride, int64_t x_stride, int image_kind, const void* logits, int64_t logits_n,
    int64_t logits_y, int64_t logits_x, int logits_kind, int64_t pixels, int height, int width, int small_height,
    int small_width, double temperature) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pixels) return;  // of the whole batch
  const int x = static_cast<int>(i % width), y = static_cast<int>(i / width % height);
  const int64_t n = i / width / height, to = n * out_n + y * out_y + x * out_x;
  for (int c = 0; c < 3; ++c) {
    const int64_t from = n * n_stride + c * c_stride + y * y_stride + x * x_stride;
    if (image_kind == 3) static_cast<double*>(out)[to + c * out_c] = static_cast<const double*>(image)[from];
    else if (image_kind == 0) static_cast<float*>(out)[to + c * out_c] = static_cast<const float*>(image)[from];
    else static_cast<uint16_t*>(out)[to + c * out_c] = static_cast<const uint16_t*>(image)[from];
  }
  if (image_kind == 3 || logits_kind == 3) {
    store(out, to + 3 * out_c, image_kind,
          attention_at(logits, logits_kind, n * logits_n, logits_y, logits_x, between<double>(y, small_height, height),
                       between<double>(x, small_width, width), temperature));
  } else {
    store(out, to + 3 * out_c, image_kind,
          attention_at(logits, logits_kind, n * logits_n, logits_y, logits_x, between<float>(y, small_height, height),
                       between<float>(x, small_width, width), static_cast<float>(temperature)));
  }
}

extern "C" __global__ void boundary_attention_backward_kernel(
    void* out, int out_kind, const void* grad, int64_t grad_n, int64_t grad_y, int64_t grad_x, const void* value,
    int64_t value_n, int64_t value_y, int64_t value_x, int kind, int64_t logits, int height, int width,
    int small_height, int small_width, double temperature) {
  using namespace banet;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= logits) return;  // of the whole batch
  const int column = static_cast<int>(i % small_width), row = static_cast<int>(i / small_width % small_height);
  const int64_t n = i / small_width / small_height;
  if (kind == 3 || out_kind == 3) {
    store(out, i, out_kind,
          logit_gradient<double>(grad, n * grad_n, grad_y, grad_x, value, n * value_n, value_y, value_x, kind, row,
                                 column, height, width, small_height, small_width, temperature));
  } else {
    store(out, i, out_kind,
          logit_gradient<float>(grad, n * grad_n, grad_y, grad_x, value, n * value_n, value_y, value_x, kind, row,
                                column, height, width, small_height, small_width, static_cast<float>(temperature)));
  }
}

#ifndef __CUDACC_RTC__
#include "launch.h"

namespace banet {

static int kind_of(const char* argument, ScalarType dtype) {
  if (dtype == ScalarType::Float) return 0;
  if (dtype == ScalarType::Half) return 1;
  if (dtype == ScalarType::BFloat16) return 2;
  STD_TORCH_CHECK(dtype == ScalarType::Double, "boundary_attention: ", argument,
                  " must be float64, float32, float16 or bfloat16");
  return 3;
}

Tensor boundary_attention_cuda(const Tensor& logits, const Tensor& image, double temperature, bool channels_last) {
  STD_TORCH_CHECK(logits.dim() == 4 && logits.size(1) == 1, "boundary_attention: logits must be [N, 1, h, w]");
  STD_TORCH_CHECK(image.dim() == 4 && image.size(1) == 3, "boundary_attention: image must be [N, 3, H, W]");
  STD_TORCH_CHECK(logits.size(0) == image.size(0), "boundary_attention: logits and image must have one batch size");
  const Launch launch(image);
  const int64_t n = image.size(0), height = image.size(2), width = image.size(3);
  Tensor result = channels_last ? torch::stable::new_empty(image, {n, height, width, 4})
                                : torch::stable::new_empty(image, {n, 4, height, width});
  if (channels_last) result = torch::stable::transpose(torch::stable::transpose(result, 1, 3), 2, 3);
  STD_TORCH_CHECK(result.numel() == 0 || logits.numel() > 0, "boundary_attention: logits must not be empty");
  launch(boundary_attention_kernel, n * height * width, result.mutable_data_ptr(), result.stride(0),
         result.stride(1), result.stride(2), result.stride(3), image.const_data_ptr(), image.stride(0),
         image.stride(1), image.stride(2), image.stride(3), kind_of("image", image.scalar_type()),
         logits.const_data_ptr(), logits.stride(0), logits.stride(2), logits.stride(3),
         kind_of("logits", logits.scalar_type()), n * height * width, height, width, logits.size(2), logits.size(3),
         temperature);
  return result;
}

Tensor boundary_attention_backward_cuda(const Tensor& grad, const Tensor& attention, int64_t height,
                                        int64_t width, ScalarType dtype, double temperature) {
  STD_TORCH_CHECK(grad.dim() == 4 && attention.dim() == 4 && grad.numel() == attention.numel() &&
                      grad.size(2) == attention.size(2) && grad.scalar_type() == attention.scalar_type(),
                  "boundary_attention_backward: grad and attention must agree");
  const Launch launch(grad);
  Tensor result = torch::stable::new_empty(grad, {grad.size(0), 1, height, width}, dtype);
  launch(boundary_attention_backward_kernel, result.numel(), result.mutable_data_ptr(), kind_of("logits", dtype),
         grad.const_data_ptr(), grad.stride(0), grad.stride(2), grad.stride(3), attention.const_data_ptr(),
         attention.stride(0), attention.stride(2), attention.stride(3), kind_of("grad", grad.scalar_type()),
         result.numel(), grad.size(2), grad.size(3), height, width, temperature);
  return result;
}

}  // namespace banet

STABLE_TORCH_LIBRARY_IMPL(banet_stream, CUDA, m) {
  m.impl("boundary_attention", TORCH_BOX(&banet::boundary_attention_cuda));
  m.impl("boundary_attention_backward", TORCH_BOX(&banet::boundary_attention_backward_cuda));
}
#endif
